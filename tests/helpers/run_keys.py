"""Keys of what `laconic run --json` prints."""

KEYS = {
    "answer", "answer_prefix", "finish", "model", "methods", "mode", "chat_template", "prompt", "tokens_out", "asked",
    "achieved", "budget_tokens", "layers", "layers_left_alone", "entries", "stream", "kv_bytes", "kv_bytes_full",
    "kv_bytes_end", "peak_memory_bytes", "memory_kind", "prefill_seconds", "compress_seconds", "decode_seconds",
    "decode_seconds_per_token", "prefill_flops", "decode_flops", "prefill_flops_full", "compared",
    "timed_runs", "settings", "versions", "warnings", "method_flops", "method_decode_flops",
}  # fmt: skip


COMPARED = {
    "answer", "finish", "agree", "first_difference", "tokens_out", "kv_bytes", "kv_bytes_end", "peak_memory_bytes", 
    "memory_kind", "prefill_seconds", "compress_seconds", "decode_seconds", "decode_seconds_per_token", "prefill_flops",
    "decode_flops", "timed_runs", "method_flops", "method_decode_flops",
}  # fmt: skip
