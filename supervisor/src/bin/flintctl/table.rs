//! Tables: columns three spaces apart, nothing else, as docker and kubectl print them.

use comfy_table::{ContentArrangement, Table, presets};

use crate::values::plain;

/// Lines of a table, each with its newline.
pub(crate) fn table(heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(heads.to_vec());
    for row in rows {
        table.add_row(row.iter().map(|cell| plain(cell)).collect::<Vec<_>>());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["web", "1/1", ""], ["a-long-name", "0/10", "\x1b[2J"]];
        let rows = rows.iter().map(|row| row.iter().map(ToString::to_string).collect());
        assert_eq!(
            table(&["NAME", "READY", "WHY"], rows),
            "NAME          READY   WHY\nweb           1/1\na-long-name   0/10    \u{fffd}[2J\n"
        );
        assert_eq!(table(&["NAME"], []), "NAME\n");
    }
}
