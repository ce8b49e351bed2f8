"""Where crops come from: folders of images and Parquet files."""
