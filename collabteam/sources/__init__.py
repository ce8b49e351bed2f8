"""Sources of crops: folders of images and Parquet files."""
