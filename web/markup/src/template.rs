//! From markup to static HTML with holes.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use rstml::node::{KeyedAttribute, Node, NodeAttribute, NodeBlock, NodeElement};
use rstml::{Infallible, Parser, ParserConfig};
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, Lit, Result};

/// Elements that have no end (HTML, 13.1.2).
const VOID: [&str; 13] =
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"];

/// What ends a `<p>` that is open (HTML, 13.2.6.4.7).
const ENDS_P: [&str; 30] = [
    "address",
    "article",
    "aside",
    "blockquote",
    "details",
    "dialog",
    "div",
    "dl",
    "fieldset",
    "figcaption",
    "figure",
    "footer",
    "form",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "header",
    "hr",
    "main",
    "nav",
    "ol",
    "p",
    "pre",
    "section",
    "summary",
    "table",
    "ul",
];

/// What a parser of HTML would put elsewhere than where it is written, or wrap in something: the holes behind it would then be
/// found in other places.
fn moved(name: &str, above: &[String]) -> Option<String> {
    let parent = above.last().map(String::as_str);
    let is_within = |outer: &str| above.iter().any(|name| name == outer);
    match name {
        _ if ENDS_P.contains(&name) && is_within("p") => {
            Some(format!("<{name}> ends the <p> that it is written in"))
        }
        "a" | "button" | "form" | "option" if is_within(name) => {
            Some(format!("a <{name}> cannot be within another"))
        }
        "tr" if parent == Some("table") => {
            Some("a <tr> of a <table> is within its <thead>, <tbody> or <tfoot>".to_owned())
        }
        "td" | "th" if parent.is_some_and(|parent| parent != "tr") => {
            Some(format!("a <{name}> is within a <tr>"))
        }
        _ if parent == Some("table")
            && !["thead", "tbody", "tfoot", "caption", "colgroup"].contains(&name) =>
        {
            Some(format!("<{name}> cannot be directly within a <table>"))
        }
        _ => None,
    }
}

/// Drawings that stand alone in a view: a browser must be told that they are SVG.
const DRAWN: [&str; 9] = ["circle", "defs", "g", "line", "path", "polyline", "rect", "text", "use"];

pub(crate) fn expand(markup: TokenStream) -> Result<TokenStream> {
    let config = ParserConfig::new().always_self_closed_elements(VOID.into());
    let nodes = Parser::new(config).parse_simple(markup)?;
    let mut template = Template::default();
    template.nodes(&nodes)?;
    let is_svg = nodes.iter().any(
        |node| matches!(node, Node::Element(element) if DRAWN.contains(&element.name().to_string().as_str())),
    );
    let Template { html, holes, values, .. } = template;
    Ok(quote! {{
        static TEMPLATE: crate::view::Template =
            crate::view::Template { html: #html, is_svg: #is_svg, holes: &[#(#holes),*] };
        crate::view::AnyView::Markup(&TEMPLATE, ::std::boxed::Box::new([#(#values),*]))
    }})
}

/// What is known of a view while it is read.
#[derive(Default)]
struct Template {
    html: String,
    /// Elements and comments so far: a hole is found by how many came before it.
    count: u16,
    holes: Vec<TokenStream>,
    values: Vec<TokenStream>,
    /// The elements that are open.
    above: Vec<String>,
}

impl Template {
    fn nodes(&mut self, nodes: &[Node]) -> Result<()> {
        nodes.iter().try_for_each(|node| self.node(node))
    }

    fn node(&mut self, node: &Node) -> Result<()> {
        match node {
            Node::Element(element) => self.element(element),
            Node::Text(text) => {
                self.html.push_str(&escaped(&text.value_string()));
                Ok(())
            }
            Node::Block(NodeBlock::ValidBlock(block)) => {
                let value = match block.stmts.as_slice() {
                    [syn::Stmt::Expr(value, None)] => quote!(#value),
                    _ => quote!(#block),
                };
                self.html.push_str("<!---->");
                let at = self.next(node.span())?;
                self.holes.push(quote!((#at, crate::view::Hole::Child)));
                self.values.push(quote_spanned!(value.span()=> crate::view::Value::child(#value)));
                Ok(())
            }
            Node::Fragment(fragment) => self.nodes(&fragment.children),
            other => Err(Error::new(other.span(), "a view is made of elements, \"texts\" and {values}")),
        }
    }

    fn element(&mut self, element: &NodeElement<Infallible>) -> Result<()> {
        let name = element.name().to_string();
        if name.starts_with(|first: char| first.is_ascii_uppercase()) {
            return Err(Error::new(
                element.name().span(),
                "a part of the page is a function: write {the_part(..)}",
            ));
        }
        if let Some(problem) = moved(&name, &self.above) {
            return Err(Error::new(element.name().span(), problem));
        }
        let at = self.next(element.name().span())?;
        self.html.push('<');
        self.html.push_str(&name);
        for attribute in element.attributes() {
            match attribute {
                NodeAttribute::Attribute(attribute) => self.attribute(at, attribute)?,
                NodeAttribute::Block(block) => {
                    return Err(Error::new(block.span(), "an attribute has a name: name=value"));
                }
            }
        }
        self.html.push('>');
        self.above.push(name.clone());
        self.nodes(element.children())?;
        self.above.pop();
        if !VOID.contains(&name.as_str()) {
            self.html.push_str("</");
            self.html.push_str(&name);
            self.html.push('>');
        }
        Ok(())
    }

    fn attribute(&mut self, at: u16, attribute: &KeyedAttribute) -> Result<()> {
        let name = attribute.key.to_string();
        let Some(value) = attribute.value() else {
            self.static_attribute(&name, "");
            return Ok(());
        };
        let (kind, value) = match name.split_once(':') {
            Some(("on", event)) => {
                let known = format_ident!("{event}", span = attribute.key.span());
                (
                    quote!(On(#event)),
                    quote_spanned!(value.span()=> crate::view::Value::handler(::leptos::ev::#known, #value)),
                )
            }
            Some(("class", class)) => (quote!(Class(#class)), changing(value)),
            Some(("style", style)) => (quote!(Style(#style)), changing(value)),
            Some(("prop", property)) => (quote!(Property(#property)), changing(value)),
            _ if name == "node_ref" => {
                (quote!(Node), quote_spanned!(value.span()=> crate::view::Value::node(#value)))
            }
            _ => {
                if let Some(text) = literal(value) {
                    self.static_attribute(&name, &text);
                    return Ok(());
                }
                (quote!(Attribute(#name)), changing(value))
            }
        };
        self.holes.push(quote!((#at, crate::view::Hole::#kind)));
        self.values.push(value);
        Ok(())
    }

    fn static_attribute(&mut self, name: &str, value: &str) {
        self.html.push(' ');
        self.html.push_str(name);
        if !value.is_empty() {
            self.html.extend(["=\"", &escaped(value), "\""]);
        }
    }

    fn next(&mut self, span: Span) -> Result<u16> {
        let at = self.count;
        self.count = at.checked_add(1).ok_or_else(|| Error::new(span, "this view is too large"))?;
        Ok(at)
    }
}

fn changing(value: &Expr) -> TokenStream {
    quote_spanned!(value.span()=> crate::view::IntoValue::into_value(#value))
}

fn literal(value: &Expr) -> Option<String> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
        _ => None,
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The HTML, and where its holes are.
    fn read(markup: TokenStream) -> std::result::Result<(String, Vec<String>), String> {
        let config = ParserConfig::new().always_self_closed_elements(VOID.into());
        let nodes = Parser::new(config).parse_simple(markup).map_err(|error| error.to_string())?;
        let mut template = Template::default();
        template.nodes(&nodes).map_err(|error| error.to_string())?;
        let holes = template.holes.iter().map(|hole| hole.to_string().replace(' ', "")).collect();
        Ok((template.html, holes))
    }

    #[test]
    fn what_is_static_is_text_and_the_rest_are_holes() {
        let (html, holes) = read(quote! {
            <p class="a" hidden>"1 < 2 & \"x\"" {name}</p>
            <input type="text" disabled=off prop:value=value on:input=act />
            <svg><use href=link></use></svg>
        })
        .unwrap();
        assert_eq!(
            html,
            "<p class=\"a\" hidden>1 &lt; 2 &amp; &quot;x&quot;<!----></p><input type=\"text\"><svg><use></use></svg>"
        );
        let places: Vec<_> = holes.iter().map(|hole| hole.replace("crate::view::Hole::", "")).collect();
        assert_eq!(
            places,
            [
                "(1u16,Child)",
                "(2u16,Attribute(\"disabled\"))",
                "(2u16,Property(\"value\"))",
                "(2u16,On(\"input\"))",
                "(4u16,Attribute(\"href\"))"
            ]
        );
    }

    #[test]
    fn what_a_browser_would_put_elsewhere_is_refused() {
        let wrong = [
            (quote!(<p><div></div></p>), "ends the <p>"),
            (quote!(<p><span><ul></ul></span></p>), "ends the <p>"),
            (quote!(<table><tr></tr></table>), "<tbody>"),
            (quote!(<table><div></div></table>), "directly within a <table>"),
            (quote!(<div><td></td></div>), "within a <tr>"),
            (quote!(<a href="/"><b><a href="/x"></a></b></a>), "within another"),
            (quote!(<Part />), "a part of the page is a function"),
            (quote!(<!DOCTYPE html>), "elements"),
        ];
        for (markup, told) in wrong {
            let error = read(markup).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
        read(quote!(<table><thead><tr><th></th></tr></thead><tbody>{rows}</tbody></table> <td></td>))
            .unwrap();
    }
}
