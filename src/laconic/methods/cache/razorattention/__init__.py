"""RazorAttention: retrieval heads keep everything; the others sinks, a recent buffer and one token for everything dropped"""

from laconic.methods.cache.razorattention.method import RazorAttention as RazorAttention
