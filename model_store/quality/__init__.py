"""What worker, report and training must judge alike: extractors, scale bar, luma, thumbnails."""
