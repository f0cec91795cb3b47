"""The segmentation models; nothing else knows other libraries' model internals."""

__all__: list[str] = []
