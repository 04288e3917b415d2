"""Discriminators: CellGAN, MASAN (SAN head) and the projected multi-scale one."""
