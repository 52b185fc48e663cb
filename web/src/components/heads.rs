//! The head of a table.

use crate::prelude::*;

/// Columns by class and name. Roles are written out since narrow screens show rows as cards, and a table that is
/// displayed as something else loses the roles that its elements have by themselves.
pub(crate) fn heads(columns: &[(&'static str, &'static str)]) -> Vec<AnyView> {
    columns
        .iter()
        .map(|(class, name)| {
            view! {
                <th role="columnheader" scope="col" class=*class>
                    {*name}
                </th>
            }
        })
        .collect()
}
