//! Images: 8-bit RGB, as they would come out of a PNG.

/// An RGB image, planar: all red values, then green, then blue, each row by row from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    width: u32,
    height: u32,
    planes: Vec<u8>,
}

impl Image {
    /// Wraps planes. `None` unless there are `3 * height * width` values.
    pub fn from_planes(width: u32, height: u32, planes: Vec<u8>) -> Option<Self> {
        (planes.len() == 3 * width as usize * height as usize).then_some(Self { width, height, planes })
    }

    /// Pixels from left to right.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Pixels from top to bottom.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The values `[3, height, width]`.
    pub fn planes(&self) -> &[u8] {
        &self.planes
    }

    /// The colour of one pixel. `x` and `y` must lie inside the image.
    pub fn pixel(&self, x: u32, y: u32) -> [u8; 3] {
        let plane = self.width as usize * self.height as usize;
        let at = y as usize * self.width as usize + x as usize;
        [self.planes[at], self.planes[plane + at], self.planes[2 * plane + at]]
    }
}

impl Image {
    /// Reads an image file.
    ///
    /// # Errors
    /// [`crate::DataError`] with the path.
    pub fn open(path: &std::path::Path) -> Result<Self, crate::DataError> {
        let unfit = |reason: String| crate::DataError::Unfit { path: path.to_owned(), reason };
        let bytes =
            std::fs::read(path).map_err(|source| crate::DataError::Read { path: path.to_owned(), source })?;
        let image = image::load_from_memory(&bytes).map_err(|e| unfit(e.to_string()))?.to_rgb8();
        let mut planes = Vec::new();
        for c in 0..3 {
            planes.extend(image.pixels().map(|p| p.0[c]));
        }
        Self::from_planes(image.width(), image.height(), planes).ok_or_else(|| unfit("size".into()))
    }
}
