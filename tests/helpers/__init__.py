"""What several tests share: tiny models, slow references, files made on the spot."""
