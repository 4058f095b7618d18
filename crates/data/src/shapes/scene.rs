//! Scenes: which objects stand in which cells of the grid, and the labels that follow from it.

use rand::Rng;

use super::{
    attributes::{Color, GRID, Shape, Size, Texture, held_out_color, is_held_out},
    draw::{below, chance, pick, shuffle, weighted},
};

/// Probability of 1, 2, 3 and 4 objects.
const OBJECT_COUNTS: [f64; 4] = [0.2, 0.4, 0.28, 0.12];
/// Probability that an object is striped.
const STRIPED: f64 = 0.4;
/// One scene in this many belongs to the test side.
const TEST_SHARE: u64 = 8;

/// Number of values of each label: shape, colour, size, texture; the last value of each means `nothing here`.
pub const LABEL_CLASSES: [i64; 4] = [9, 9, 3, 3];
/// The four labels of an empty place.
pub const NOTHING: [i64; 4] = [8, 8, 2, 2];
/// Patches per image side (8x8 pixels each).
pub const PATCH_GRID: usize = 6;

/// One object and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Object {
    /// Colour.
    pub color: Color,
    /// Outline.
    pub shape: Shape,
    /// Size.
    pub size: Size,
    /// Surface.
    pub texture: Texture,
    /// Grid row, 0 at the top.
    pub row: usize,
    /// Grid column, 0 at the left.
    pub column: usize,
}

impl Object {
    /// Cell in reading order, 0 to 8.
    pub fn cell(&self) -> usize {
        self.row * GRID + self.column
    }

    /// Labels shape, colour, size, texture.
    pub fn labels(&self) -> [i64; 4] {
        [self.shape.index() as i64, self.color.index() as i64, self.size.index() as i64, self.texture.index() as i64]
    }
}

/// Which side of the world a scene belongs to. A property of the scene itself, so the sides share no scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Seven scenes in eight.
    Train,
    /// One scene in eight, and every scene with a held-out pair.
    Test,
}

/// One to four objects in distinct cells, in reading order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scene {
    objects: Vec<Object>,
}

impl Scene {
    /// A scene of the given objects, put in reading order. `None` if there are not 1 to 9, or two share a cell.
    pub fn new(mut objects: Vec<Object>) -> Option<Self> {
        objects.sort_by_key(Object::cell);
        let distinct = objects.windows(2).all(|pair| pair[0].cell() < pair[1].cell());
        let inside = objects.iter().all(|o| o.row < GRID && o.column < GRID);
        (!objects.is_empty() && distinct && inside).then_some(Self { objects })
    }

    /// Draws a scene of the given side without held-out pairs and with at least `least` objects (1 to 4).
    pub fn draw(rng: &mut (impl Rng + ?Sized), side: Side, least: usize) -> Self {
        loop {
            let scene = Self::draw_any(rng, false);
            if scene.objects.len() >= least.min(OBJECT_COUNTS.len()) && scene.side() == side {
                return scene;
            }
        }
    }

    /// Draws a scene in which at least one object is a held-out pair.
    pub fn draw_held_out(rng: &mut (impl Rng + ?Sized)) -> Self {
        Self::draw_any(rng, true)
    }

    fn draw_any(rng: &mut (impl Rng + ?Sized), held_out: bool) -> Self {
        let count = 1 + weighted(rng, &OBJECT_COUNTS);
        let mut cells: [usize; GRID * GRID] = std::array::from_fn(|cell| cell);
        shuffle(rng, &mut cells);
        let forced = held_out.then(|| below(rng, count));
        let mut objects: Vec<Object> = (0..count)
            .map(|i| {
                let (color, shape) = draw_pair(rng, held_out, forced == Some(i));
                let size = Size::ALL[below(rng, Size::COUNT)];
                let texture = if chance(rng, STRIPED) { Texture::Striped } else { Texture::Plain };
                Object { color, shape, size, texture, row: cells[i] / GRID, column: cells[i] % GRID }
            })
            .collect();
        objects.sort_by_key(Object::cell);
        Self { objects }
    }

    /// The objects in reading order.
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// Whether an object is a pair that training images never show.
    pub fn has_held_out_pair(&self) -> bool {
        self.objects.iter().any(|o| is_held_out(o.color, o.shape))
    }

    /// The side the scene belongs to: decided by a fixed hash of its objects, never by a seed.
    pub fn side(&self) -> Side {
        let mut hash = 0x9e37_79b9_7f4a_7c15_u64;
        for object in &self.objects {
            let [shape, color, size, texture] = object.labels().map(|label| label as u64);
            let code = ((((shape * 8 + color) * 2 + size) * 2) + texture) * 9 + object.cell() as u64;
            hash = mix(hash ^ (code + 1));
        }
        if self.has_held_out_pair() || hash.is_multiple_of(TEST_SHARE) { Side::Test } else { Side::Train }
    }

    /// Objects whose key no other object shares.
    pub fn unique_by<K: PartialEq>(&self, key: impl Fn(&Object) -> K) -> Vec<&Object> {
        let keys: Vec<K> = self.objects.iter().map(&key).collect();
        self.objects
            .iter()
            .enumerate()
            .filter(|(i, _)| keys.iter().enumerate().all(|(j, other)| *i == j || *other != keys[*i]))
            .map(|(_, object)| object)
            .collect()
    }

    /// Labels (shape, colour, size, texture) of the nine cells in reading order; [`NOTHING`] where a cell is empty.
    pub fn cell_labels(&self) -> [[i64; 4]; GRID * GRID] {
        let mut labels = [NOTHING; GRID * GRID];
        for object in &self.objects {
            labels[object.cell()] = object.labels();
        }
        labels
    }

    /// Labels of the 36 image patches in reading order: those of the cell a patch lies in.
    pub fn patch_labels(&self) -> [[i64; 4]; PATCH_GRID * PATCH_GRID] {
        let cells = self.cell_labels();
        let per_cell = PATCH_GRID / GRID;
        std::array::from_fn(|patch| cells[(patch / PATCH_GRID / per_cell) * GRID + (patch % PATCH_GRID) / per_cell])
    }
}

fn draw_pair(rng: &mut (impl Rng + ?Sized), held_out: bool, forced: bool) -> (Color, Shape) {
    loop {
        let shape = Shape::ALL[below(rng, Shape::COUNT)];
        if forced {
            return (held_out_color(shape), shape);
        }
        if let Some(color) = pick(rng, Color::ALL)
            && (held_out || !is_held_out(color, shape))
        {
            return (color, shape);
        }
    }
}

/// The finaliser of SplitMix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
