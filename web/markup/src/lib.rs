//! The console's `view!`: leptos's syntax, compiled to one piece of static HTML and the few values that go into it.
//!
//! Leptos makes a type of every element, attribute and closure, and compiles its machinery for each. Markup as text is a
//! fraction of that for a browser to load, and the machinery (`web/src/view`) is compiled once. What is understood:
//!
//! - elements, void ones included, in HTML and SVG; several beside one another; `"text"`; `{value}` for whatever is a view;
//! - `name="text"`, `name=value` (a text, a flag, or either as it changes; `None` and `false` take the attribute away);
//! - `class:NAME=flag`, `style:NAME=text` (also `style:--NAME`), `prop:NAME=value` for a property of the element;
//! - `on:EVENT=handler`, with the types of leptos's `ev`;
//! - `node_ref=node`.
//!
//! Components are functions: `{health_badge(health)}`.

mod template;

use proc_macro::TokenStream;

/// Markup with holes. See the crate's own words.
#[proc_macro]
pub fn view(markup: TokenStream) -> TokenStream {
    template::expand(markup.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}
