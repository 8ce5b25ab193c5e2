"""Topics and filters: rules and matching (`filters`), the index (`trie`), routing to receivers (`router`). All pure."""
