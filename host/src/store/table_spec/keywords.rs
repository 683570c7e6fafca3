//! Words that cannot name a table or a column.

/// Keywords of SQLite, and those that PostgreSQL reserves.
const KEYWORDS: &str = "
abort action add after all alter always analyse analyze and any array as asc asymmetric
attach autoincrement before begin between both by cascade case cast check collate column
commit conflict constraint create cross current current_date current_role current_time
current_timestamp current_user database default deferrable deferred delete desc detach
distinct do drop each else end escape except exclude exclusive exists explain fail false
fetch filter first following for foreign from full generated glob grant group groups
having if ignore immediate in index indexed initially inner insert instead intersect into
is isnull join key last lateral leading left like limit localtime localtimestamp match
materialized natural no not nothing notnull null nulls of offset on only or order others
outer over overlaps partition placing plan pragma preceding primary query raise range
recursive references regexp reindex release rename replace restrict returning right
rollback row rows savepoint select session_user set similar some symmetric table temp
temporary then ties to trailing transaction trigger true unbounded union unique update
user using vacuum values variadic view virtual when where window with without
";

/// Whether a name is a keyword.
pub(super) fn is_keyword(name: &str) -> bool {
    KEYWORDS
        .split_ascii_whitespace()
        .any(|keyword| keyword == name)
}
