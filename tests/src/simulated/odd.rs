//! Texts that a page should show as they are, without stumbling.

/// Markup, letters that go the other way, control characters, nothing at all, and ten thousand of the same.
pub(super) fn texts() -> Vec<String> {
    vec![
        "<img src=x onerror=\"window.struck=1\"><script>window.struck=1</script><b>bold</b>".to_owned(),
        "\"><svg onload=window.struck=1> &lt;i&gt; &amp; {{7*7}} ${7*7}".to_owned(),
        "\u{202e}gnp.exe turned \u{2066}and never \u{202b}turned back".to_owned(),
        "שלום עולם مرحبا بالعالم".to_owned(),
        "x".repeat(10_000),
        "ten thousand letters ".repeat(480),
        "bell\u{7} null\u{0} escape\u{1b}[31m tab\t break\r\nend\u{7f}\u{85}\u{2028}".to_owned(),
        format!("Z{}a{}lgo", "\u{35c}\u{363}\u{36b}".repeat(40), "\u{317}\u{326}".repeat(40)),
        "javascript:window.struck=1".to_owned(),
        String::new(),
        " \t ".to_owned(),
        "\u{200b}\u{feff}👩‍👩‍👧‍👦\u{fffd}".to_owned(),
    ]
}
