//! What an object can be: colour, shape, size and texture, each with its word.

macro_rules! attribute {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$value_doc])* $value),+ }

        impl $name {
            /// Every value, in the order of [`index`](Self::index).
            pub const ALL: &'static [$name] = &[$($name::$value),+];
            /// Number of values.
            pub const COUNT: usize = Self::ALL.len();

            /// The word used in questions, answers and captions.
            pub fn word(self) -> &'static str {
                match self { $($name::$value => $word),+ }
            }

            /// Place in [`ALL`](Self::ALL).
            pub fn index(self) -> usize {
                self as usize
            }

            /// The value a word stands for.
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.word() == word)
            }
        }
    };
}

attribute! {
    /// Colour of an object.
    Color {
        /// (.95, .1, .1)
        Red = "red",
        /// (.1, .75, .15)
        Green = "green",
        /// (.15, .2, .95)
        Blue = "blue",
        /// (.95, .9, .1)
        Yellow = "yellow",
        /// (.9, .2, .8)
        Pink = "pink",
        /// (.1, .85, .9)
        Cyan = "cyan",
        /// (.95, .55, .1)
        Orange = "orange",
        /// (.95, .95, .95)
        White = "white",
    }
}

attribute! {
    /// Outline of an object.
    Shape {
        /// A disc.
        Circle = "circle",
        /// An upright square.
        Square = "square",
        /// A triangle that points up.
        Triangle = "triangle",
        /// A square on its corner.
        Diamond = "diamond",
        /// An upright plus sign.
        Cross = "cross",
        /// A disc with a hole.
        Ring = "ring",
        /// An upright bar.
        Bar = "bar",
        /// The upper half of a disc.
        Arch = "arch",
    }
}

attribute! {
    /// Size of an object.
    Size {
        /// Radius 4.2 pixels.
        Small = "small",
        /// Radius 7 pixels.
        Large = "large",
    }
}

attribute! {
    /// Surface of an object.
    Texture {
        /// One colour.
        Plain = "plain",
        /// Every other pair of pixel rows is darkened.
        Striped = "striped",
    }
}

/// Cells per side of the grid.
pub const GRID: usize = 3;
/// Words for grid rows, from the top.
pub const ROW_WORDS: [&str; GRID] = ["top", "middle", "bottom"];
/// Words for grid columns, from the left.
pub const COLUMN_WORDS: [&str; GRID] = ["left", "center", "right"];

/// Whether a pair of colour and shape is held out: it never occurs in a training image.
pub fn is_held_out(color: Color, shape: Shape) -> bool {
    color == held_out_color(shape)
}

/// The one colour in which a shape never occurs in training images.
pub fn held_out_color(shape: Shape) -> Color {
    Color::ALL[(shape.index() + 3) % Color::COUNT]
}
