//! A plain table of numbers; on a narrow screen each row is a card, with its heads as labels.

use crate::prelude::*;

use super::heads::heads;

/// A number under its head.
pub(crate) fn cell(label: &'static str, value: String) -> AnyView {
    view! {
        <td role="cell" class="number" data-label=label>
            {value}
        </td>
    }
}

/// The table.
pub(crate) fn figures(
    name: &'static str,
    testid: &'static str,
    heads_of: &[(&'static str, &'static str)],
    rows: Vec<AnyView>,
) -> AnyView {
    view! {
        <div class="table-frame">
            <table class="usage" role="table" aria-label=name data-testid=testid>
                <thead role="rowgroup">
                    <tr role="row">{heads(heads_of)}</tr>
                </thead>
                <tbody role="rowgroup">{rows}</tbody>
            </table>
        </div>
    }
}
