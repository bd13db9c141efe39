//! Language models on MLX: loading, generating, measuring. Without the feature `mlx` there is nothing in it.
