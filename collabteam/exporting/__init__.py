"""The labelled dataset in the formats of other tools."""
