//! The letters that pictures are captioned in: bitmap fonts of several alphabets, and what stands for a letter that none has.

use embedded_graphics::mono_font::mapping::{self, StrGlyphMapping};
use embedded_graphics::mono_font::{
    MonoFont, iso_8859_1, iso_8859_2, iso_8859_3, iso_8859_4, iso_8859_5, iso_8859_7, iso_8859_9, iso_8859_14, iso_8859_15, iso_8859_16,
};

/// The characters of an alphabet, and its fonts.
struct Alphabet {
    characters: StrGlyphMapping<'static>,
    title: MonoFont<'static>,
    note: MonoFont<'static>,
}

macro_rules! alphabet {
    ($fonts:ident, $characters:ident) => {
        Alphabet { characters: mapping::$characters, title: $fonts::FONT_9X15_BOLD, note: $fonts::FONT_8X13 }
    };
}

/// Latin of all Europe and Turkey, Cyrillic, Greek.
static ALPHABETS: [Alphabet; 10] = [
    alphabet!(iso_8859_1, ISO_8859_1),
    alphabet!(iso_8859_2, ISO_8859_2),
    alphabet!(iso_8859_3, ISO_8859_3),
    alphabet!(iso_8859_4, ISO_8859_4),
    alphabet!(iso_8859_5, ISO_8859_5),
    alphabet!(iso_8859_7, ISO_8859_7),
    alphabet!(iso_8859_9, ISO_8859_9),
    alphabet!(iso_8859_14, ISO_8859_14),
    alphabet!(iso_8859_15, ISO_8859_15),
    alphabet!(iso_8859_16, ISO_8859_16),
];

/// A size of letters, the same in all alphabets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    Title,
    Note,
}

impl Face {
    /// Columns of a character.
    pub fn width(self) -> u32 {
        self.of(&ALPHABETS[0]).character_size.width
    }

    /// Rows of a line.
    pub fn height(self) -> u32 {
        self.of(&ALPHABETS[0]).character_size.height
    }

    /// The font that has a character; the first one, which draws a question mark, where none has.
    pub fn font(self, c: char) -> &'static MonoFont<'static> {
        self.of(alphabet(c).unwrap_or(&ALPHABETS[0]))
    }

    fn of(self, alphabet: &Alphabet) -> &MonoFont<'static> {
        match self {
            Face::Title => &alphabet.title,
            Face::Note => &alphabet.note,
        }
    }
}

fn alphabet(c: char) -> Option<&'static Alphabet> {
    ALPHABETS.iter().find(|alphabet| !c.is_control() && alphabet.characters.contains(c))
}

/// Names as they are drawn, each another one: `polyp`, `Полип`. A letter of no alphabet here is
/// told by its number in Unicode, and such a name begins with its own number, from 0: `class 3: U+606F U+8089`.
pub fn drawable(names: &[String]) -> Vec<String> {
    let spelt: Vec<Spelt> = names.iter().map(|name| spell(name)).collect();
    let plain = |at: usize| spelt[at].whole && spelt.iter().filter(|other| other.text == spelt[at].text).count() == 1;
    let text = |at: usize| if plain(at) { spelt[at].text.clone() } else { format!("class {at}: {}", spelt[at].text) };
    (0..names.len()).map(text).collect()
}

struct Spelt {
    text: String,
    /// Whether every letter could be kept.
    whole: bool,
}

fn spell(name: &str) -> Spelt {
    // An accent of its own, as file systems of macOS store it, is left out: the letter below it is kept.
    let accent = |c: char| ('\u{300}'..='\u{36f}').contains(&c);
    let (mut text, mut whole) = (String::new(), true);
    for c in name.chars().filter(|&c| !accent(c)) {
        match alphabet(c) {
            Some(_) => text.push(c),
            None => (text, whole) = (format!("{text} U+{:04X} ", u32::from(c)), false),
        }
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    Spelt { text: words.join(" "), whole: whole && !words.is_empty() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn european_alphabets_are_drawn_and_other_letters_numbered() {
        let kept = ["polyp", "Barrett-Ösophagus", "Полип", "πολύποδας", "żołądź", "bağırsak"];
        let names = kept.map(String::from);
        assert_eq!(drawable(&names), names);
        let drawn = |names: &[&str]| drawable(&names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
        assert_eq!(drawn(&["polyp", "息肉", "胃 IIa"]), ["polyp", "class 1: U+606F U+8089", "class 2: U+80C3 IIa"]);
        assert_eq!(drawn(&["a\nb", "", "🧠"]), ["class 0: a U+000A b", "class 1: ", "class 2: U+1F9E0"]);
    }

    #[test]
    fn names_that_would_look_alike_are_numbered() {
        let names = ["O\u{308}sophagus", "Osophagus", "Magen"].map(String::from);
        assert_eq!(drawable(&names), ["class 0: Osophagus", "class 1: Osophagus", "Magen"]);
        assert_eq!(drawable(&names[..1]), ["Osophagus"]);
    }

    /// Lines are laid out by the first alphabet's letters.
    #[test]
    fn letters_of_all_alphabets_are_of_one_size() {
        for (face, alphabet) in [Face::Title, Face::Note].into_iter().flat_map(|face| ALPHABETS.iter().map(move |a| (face, a))) {
            assert_eq!((face.of(alphabet).character_size.width, face.of(alphabet).character_size.height), (face.width(), face.height()));
        }
        let fonts = ['a', 'Я', 'Ω', 'ş', 'ș'].map(|c| std::ptr::from_ref(Face::Title.font(c)));
        assert!((1..fonts.len()).all(|i| !fonts[..i].contains(&fonts[i])), "each from an alphabet of its own");
    }
}
