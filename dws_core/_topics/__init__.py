"""Topics, all pure: what is valid and what matches (`filters`), the index (`trie`), who gets what (`router`)."""
