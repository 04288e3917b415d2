"""The networks that give a checkpoint's weights a meaning."""
