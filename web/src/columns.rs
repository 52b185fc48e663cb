//! The columns of the list of runs: which are shown, in which order, and how wide.

use retinker::host::api::RunSort;

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Column {
    /// How the run is.
    Health,
    /// Its name and id.
    Name,
    /// The base model.
    Model,
    /// The adapter's rank.
    Rank,
    /// When it last asked for something.
    Activity,
    /// The last checkpoint.
    Checkpoint,
    /// When that expires.
    Expires,
    /// What it was restored from and as.
    Lineage,
    /// Whose it is.
    Owner,
    /// What its owner wrote on it.
    Labels,
}

impl Column {
    /// All, in the usual order.
    pub const ALL: [Self; 10] = [
        Self::Health,
        Self::Name,
        Self::Model,
        Self::Rank,
        Self::Activity,
        Self::Checkpoint,
        Self::Expires,
        Self::Lineage,
        Self::Owner,
        Self::Labels,
    ];

    /// Its heading, its name in the address, its usual width in pixels, and its order.
    fn traits(self) -> (&'static str, &'static str, u32, Option<RunSort>) {
        match self {
            Self::Health => ("Health", "health", 158, Some(RunSort::Health)),
            Self::Name => ("Run", "name", 204, Some(RunSort::Name)),
            Self::Model => ("Base model", "model", 180, Some(RunSort::Model)),
            Self::Rank => ("Rank", "rank", 68, Some(RunSort::Rank)),
            Self::Activity => ("Last activity", "activity", 118, Some(RunSort::Activity)),
            Self::Checkpoint => ("Last checkpoint", "checkpoint", 138, Some(RunSort::Saved)),
            Self::Expires => ("Expires", "expires", 92, Some(RunSort::Expires)),
            Self::Lineage => ("Lineage", "lineage", 206, None),
            Self::Owner => ("Owner", "owner", 130, None),
            Self::Labels => ("Labels", "labels", 240, None),
        }
    }

    /// Its heading.
    pub fn heading(self) -> &'static str {
        self.traits().0
    }

    /// Its name in the address.
    pub fn as_str(self) -> &'static str {
        self.traits().1
    }

    /// The order that a click on its heading asks for.
    pub fn sort(self) -> Option<RunSort> {
        self.traits().3
    }

    /// Whether a column stays whatever is chosen: a list of runs without their names would be of no use.
    pub fn is_fixed(self) -> bool {
        self == Self::Name
    }

    /// Whether its values are of any length, so that more room shows more of them.
    pub fn is_text(self) -> bool {
        matches!(self, Self::Model | Self::Checkpoint | Self::Lineage | Self::Owner | Self::Labels)
    }

    /// Whether its values stand at the right.
    pub fn is_number(self) -> bool {
        self == Self::Rank
    }
}

/// Narrowest and widest, in pixels.
pub const WIDTHS: (u32, u32) = (56, 900);
/// What a press of a key makes a column wider or narrower by, in pixels.
pub const STEP: u32 = 16;

/// Those shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// In order; a width where it is not the usual one.
    shown: Vec<(Column, Option<u32>)>,
}

impl Default for Columns {
    fn default() -> Self {
        let usual =
            Column::ALL.into_iter().filter(|column| !matches!(column, Column::Owner | Column::Labels));
        Self { shown: usual.map(|column| (column, None)).collect() }
    }
}

impl Columns {
    /// Reads `health,name~320,model`. What means nothing is passed over; without the run's name it means nothing at all.
    pub fn read(text: &str) -> Option<Self> {
        let mut shown: Vec<(Column, Option<u32>)> = Vec::new();
        for part in text.split(',') {
            let (name, width) = part.split_once('~').unwrap_or((part, ""));
            let Some(column) = Column::ALL.into_iter().find(|column| column.as_str() == name) else {
                continue;
            };
            if shown.iter().all(|(known, _)| *known != column) {
                let width = width.parse::<u32>().ok().map(|width| width.clamp(WIDTHS.0, WIDTHS.1));
                shown.push((column, width));
            }
        }
        shown.iter().any(|(column, _)| column.is_fixed()).then_some(Self { shown })
    }

    /// As [`read`](Self::read) takes it.
    pub fn to_text(&self) -> String {
        let part = |(column, width): &(Column, Option<u32>)| match width {
            Some(width) => format!("{}~{width}", column.as_str()),
            None => column.as_str().to_owned(),
        };
        self.shown.iter().map(part).collect::<Vec<_>>().join(",")
    }

    /// Those shown, in order.
    pub fn list(&self) -> Vec<Column> {
        self.shown.iter().map(|(column, _)| *column).collect()
    }

    /// Whether it is shown.
    pub fn has(&self, column: Column) -> bool {
        self.shown.iter().any(|(shown, _)| *shown == column)
    }

    /// A column's width in pixels.
    pub fn width(&self, column: Column) -> u32 {
        let own = self.shown.iter().find(|(shown, _)| *shown == column).and_then(|(_, width)| *width);
        own.unwrap_or(column.traits().2)
    }

    /// With this column shown or not; one that comes back stands where it usually does.
    pub fn with(&self, column: Column, is_shown: bool) -> Self {
        let mut shown = self.shown.clone();
        if column.is_fixed() || is_shown == self.has(column) {
            return self.clone();
        }
        if is_shown {
            let place = |column: Column| Column::ALL.iter().position(|known| *known == column);
            let at = shown.iter().position(|(known, _)| place(*known) > place(column)).unwrap_or(shown.len());
            shown.insert(at, (column, None));
        } else {
            shown.retain(|(known, _)| *known != column);
        }
        Self { shown }
    }

    /// With another width of a column, in pixels.
    pub fn with_width(&self, column: Column, width: u32) -> Self {
        let mut shown = self.shown.clone();
        for (_, own) in shown.iter_mut().filter(|(known, _)| *known == column) {
            *own = Some(width.clamp(WIDTHS.0, WIDTHS.1));
        }
        Self { shown }
    }

    /// The columns for a style sheet, after one for the boxes that select. The run's name takes what is left over, and on
    /// a wide screen other texts take their part, unless somebody has said how wide they are.
    pub fn template(&self) -> String {
        let width = |(column, own): &(Column, Option<u32>)| match own {
            None if column.is_fixed() => format!(" minmax({}px, 2fr)", column.traits().2),
            None if column.is_text() => format!(" minmax({}px, 1fr)", column.traits().2),
            _ => format!(" {}px", self.width(*column)),
        };
        format!("40px{}", self.shown.iter().map(width).collect::<String>())
    }

    /// The least width of a row, in pixels: narrower frames scroll sideways.
    pub fn total(&self) -> u32 {
        self.shown.iter().map(|(column, _)| self.width(*column)).sum::<u32>().saturating_add(40)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_survive_the_address() {
        let usual = Columns::default();
        assert_eq!(usual.to_text(), "health,name,model,rank,activity,checkpoint,expires,lineage");
        assert_eq!(Columns::read(&usual.to_text()), Some(usual.clone()));
        let own = usual.with(Column::Rank, false).with(Column::Labels, true).with_width(Column::Name, 320);
        assert_eq!(own.to_text(), "health,name~320,model,activity,checkpoint,expires,lineage,labels");
        assert_eq!(Columns::read(&own.to_text()), Some(own.clone()));
        assert_eq!(
            own.with(Column::Rank, true).list()[3],
            Column::Rank,
            "it comes back where it usually stands"
        );
    }

    #[test]
    fn nonsense_is_passed_over() {
        assert_eq!(Columns::read(""), None);
        assert_eq!(Columns::read("health,colour"), None, "not without the name");
        assert_eq!(
            Columns::read("name,name~90,health~x").map(|c| c.to_text()).as_deref(),
            Some("name,health")
        );
        let far = Columns::read("name~999999,rank~1").unwrap();
        assert_eq!((far.width(Column::Name), far.width(Column::Rank)), (900, 56));
    }

    #[test]
    fn the_name_stays_and_takes_the_room() {
        let usual = Columns::default();
        assert!(usual.with(Column::Name, false).has(Column::Name));
        let two = Columns::read("name,rank").unwrap();
        assert_eq!(two.template(), "40px minmax(204px, 2fr) 68px");
        assert_eq!(two.total(), 40 + 204 + 68);
        assert_eq!(two.with_width(Column::Name, 300).template(), "40px 300px 68px");
    }
}
