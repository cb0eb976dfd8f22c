"""What several chapters share: dual activations, limit kernels of many points, tangent kernels of
any function, random networks of any size, and how arguments are checked.

The chapters' modules stand on it; nothing here imports a chapter.
"""
