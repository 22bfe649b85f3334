"""RazorAttention: retrieval heads keep everything; the others sinks, a recent buffer and one token for all that is gone"""

from laconic.methods.cache.razorattention.method import RazorAttention as RazorAttention
