//! A bar of pieces, drawn to scale in a row of cells: pure text, of a width that is given.

use crate::terminal::{Colour, Style};

/// The least columns of a piece, its left border left out.
const LEAST: usize = 1;

/// A piece of a bar.
pub(super) struct Piece {
    /// What it is called.
    pub(super) label: String,
    /// What stands below.
    pub(super) detail: String,
    /// Its size; the width follows from it.
    pub(super) size: u64,
    /// Its colour, where there are colours.
    pub(super) colour: Colour,
}

/// The characters of a frame: corners and crossings of its top and its bottom, lines.
struct Frame {
    top: [char; 3],
    bottom: [char; 3],
    horizontal: char,
    vertical: char,
    cut: char,
}

const BOX: Frame = Frame {
    top: ['┌', '┬', '┐'],
    bottom: ['└', '┴', '┘'],
    horizontal: '─',
    vertical: '│',
    cut: '…',
};
const ASCII: Frame = Frame {
    top: ['+', '+', '+'],
    bottom: ['+', '+', '+'],
    horizontal: '-',
    vertical: '|',
    cut: '~',
};

/// The bar in four lines, `style.columns` wide if all pieces have room.
pub(super) fn bar(pieces: &[Piece], style: Style) -> String {
    let frame = if style.unicode { &BOX } else { &ASCII };
    let room = style.columns.saturating_sub(pieces.len() + 1);
    let sizes: Vec<u64> = pieces.iter().map(|piece| piece.size).collect();
    let widths = shares(&sizes, room);
    let edge = |[left, middle, right]: [char; 3]| {
        let cells = widths
            .iter()
            .map(|width| frame.horizontal.to_string().repeat(*width));
        let inner = cells.collect::<Vec<_>>().join(&middle.to_string());
        format!("{left}{inner}{right}\n")
    };
    let row = |text: &dyn Fn(&Piece) -> &str| {
        let mut line = String::new();
        for (piece, width) in pieces.iter().zip(&widths) {
            line.push(frame.vertical);
            let cell = fit(text(piece), *width, frame.cut);
            line.push_str(&style.paint(piece.colour, &cell));
        }
        line.push(frame.vertical);
        line.push('\n');
        line
    };
    [
        edge(frame.top),
        row(&|piece| &piece.label),
        row(&|piece| &piece.detail),
        edge(frame.bottom),
    ]
    .concat()
}

/// Divides `room` columns by size, each piece at least [`LEAST`]; largest remainders get what rounding leaves.
fn shares(sizes: &[u64], room: usize) -> Vec<usize> {
    let spare = room.saturating_sub(sizes.len() * LEAST) as u128;
    let total: u128 = sizes
        .iter()
        .map(|size| u128::from(*size))
        .sum::<u128>()
        .max(1);
    let exact = sizes.iter().map(|size| u128::from(*size) * spare);
    let mut widths: Vec<usize> = exact
        .clone()
        .map(|part| (part / total) as usize + LEAST)
        .collect();
    let mut by_remainder: Vec<(u128, usize)> = exact.map(|part| part % total).zip(0..).collect();
    by_remainder.sort_by_key(|(remainder, at)| (std::cmp::Reverse(*remainder), *at));
    let given: usize = widths.iter().sum();
    let left = room.saturating_sub(given).min(widths.len());
    for (_, at) in &by_remainder[..left] {
        widths[*at] += 1;
    }
    widths
}

/// A text in exactly `width` columns, with a space before it where there is room.
fn fit(text: &str, width: usize, cut: char) -> String {
    let text = if width > 4 {
        format!(" {text}")
    } else {
        text.to_owned()
    };
    let count = text.chars().count();
    if count <= width {
        return format!("{text}{}", " ".repeat(width - count));
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    match width {
        0 => String::new(),
        1 => text.chars().take(1).collect(),
        _ => format!("{kept}{cut}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(label: &str, size: u64) -> Piece {
        Piece {
            label: label.to_owned(),
            detail: format!("{size} MiB"),
            size,
            colour: Colour::Plain,
        }
    }

    #[test]
    fn pieces_are_to_scale_and_the_smallest_is_still_seen() {
        for (sizes, room, want) in [
            (&[1, 1][..], 10, &[5, 5][..]),
            (&[64, 32, 1, 3], 40, &[24, 13, 1, 2]),
            (&[1 << 40, 1], 20, &[19, 1]),
            (&[0, 0], 4, &[2, 2]),
            (&[5], 7, &[7]),
        ] {
            let widths = shares(sizes, room);
            assert_eq!(widths, want, "{sizes:?}");
        }
    }

    #[test]
    fn a_bar_is_as_wide_as_it_is_asked_to_be() {
        let pieces = [piece("esp", 64), piece("root", 30), piece("root-verity", 1)];
        for columns in [24, 80, 200] {
            let style = Style {
                columns,
                unicode: false,
                colour: false,
            };
            let bar = bar(&pieces, style);
            assert!(bar.is_ascii());
            assert!(bar.lines().all(|line| line.len() == columns), "{bar}");
        }
        let style = Style {
            columns: 30,
            unicode: true,
            colour: false,
        };
        assert_eq!(
            bar(&pieces, style),
            "┌─────────────────┬────────┬─┐\n\
             │ esp             │ root   │r│\n\
             │ 64 MiB          │ 30 MiB │1│\n\
             └─────────────────┴────────┴─┘\n"
        );
    }
}
