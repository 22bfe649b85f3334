"""A saved context that no longer fits its tokenizer is refused."""


def test_another_chat_template_is_refused(laconic, model, context, tmp_path):
    import shutil

    from transformers import AutoTokenizer

    file, other = tmp_path / "notes.context", tmp_path / "other"
    args = ("--max-new-tokens", 1, "--cache", file, "-q", "Wo?")
    laconic.json("run", "--model", model, *args, "--context", context)
    shutil.copytree(model, other)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = "{{ bos_token }}{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer.save_pretrained(other)
    line = laconic.bad(2, "run", "--model", other, *args)
    assert "puts other tokens before the context" in line and str(file) in line
