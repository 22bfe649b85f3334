"""DiffRate: how many tokens each encoder layer prunes and merges, learned by gradient"""

from laconic.methods.encoder.diffrate.method import DiffRate as DiffRate
