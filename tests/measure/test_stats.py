"""Figures print as lines that people read."""

from laconic.measure.stats import Stats


def test_it_prints_as_lines():
    stats = Stats(
        tokens_in=1024,
        tokens_out=7,
        asked=0.1,
        achieved=0.0996,
        kv_bytes=3 * 2**20,
        kv_bytes_full=30 * 2**20,
        prefill_seconds=1.25,
        compress_seconds=0.05,
        prefill_flops=2 * 10**9,
        prefill_flops_full=10**9,
        visual_in=0,
    )
    lines = dict(line.split("  ", 1) for line in str(stats).splitlines())
    found = {name: text.strip() for name, text in lines.items()}
    assert found["tokens"] == "1,024 in, 7 decoded" and found["budget"] == "asked 10.00%, achieved 9.96%"
    assert found["KV bytes"] == "3.0 MiB of 30.0 MiB" and "visual tokens" not in found
    assert found["prefill"] == "1.25 s, 50.0 ms of it the methods' own work"
    assert found["prefill FLOPs"] == "2.00 GFLOP, uncompressed 1.00 GFLOP"
    assert {line.index(found[name]) for name, line in zip(found, str(stats).splitlines(), strict=True)} == {15}
    assert "visual tokens" in str(Stats(visual_in=576)) and repr(stats).startswith("Stats(tokens_in=1024")
