"""A bench over pictures: the testbed's scenes and public benchmarks x methods x budgets, at equal FLOPs."""
