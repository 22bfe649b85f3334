FROM python:3.12-slim
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
# torch without CUDA: --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
ARG PIP_EXTRA_INDEX_URL
RUN pip install --no-cache-dir -c constraints.txt '.[serve]' \
    && useradd --create-home laconic && mkdir /data && chown laconic /data
USER laconic
ENV LACONIC_CACHE=/data
VOLUME /data
EXPOSE 8000
ENTRYPOINT ["laconic", "serve", "--host", "0.0.0.0"]
CMD ["--help"]
