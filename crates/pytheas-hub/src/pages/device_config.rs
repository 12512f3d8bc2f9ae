//! The part of a device's page that shows its settings, and what it says of them.

use maud::{Markup, html};
use pytheas_api::{ConfigState, DeviceConfig};

/// Nothing for a device that takes no settings and for which there are none.
pub(super) fn section(config: &DeviceConfig) -> Markup {
    if config.revision == 0 && matches!(config.applied.as_deref(), None | Some("0")) {
        return html! {};
    }
    let json = serde_json::to_string_pretty(&config.settings).unwrap_or_default();
    let layers: Vec<String> = config.layers.iter().map(ToString::to_string).collect();
    html! {
        h2 { "Configuration" }
        section.card aria-label="Configuration" {
            dl {
                dt { "Revision" } dd { (config.revision) span.soft { " (" (config.tag) ")" } }
                dt { "State" } dd { (config.state.as_str()) span.soft { " " (meaning(config.state)) } }
                dt { "It runs with" } dd { (config.applied.as_deref().unwrap_or("–")) }
                @if !layers.is_empty() { dt { "From" } dd { (layers.join(", ")) } }
                @for (board, has) in &config.boards {
                    dt { "Board " (board) }
                    dd {
                        (has.applied.as_deref().unwrap_or("–"))
                        @if let Some(because) = &has.because { span.soft { " not " (because) } }
                    }
                }
            }
            @if let Some((first, rest)) = config.because.split_first() {
                p { (first) }
                @if !rest.is_empty() { pre tabindex="0" { (rest.join("\n")) } }
            }
            pre tabindex="0" { (json) }
        }
    }
}

fn meaning(state: ConfigState) -> &'static str {
    match state {
        ConfigState::Unsupported => "it never said that it takes settings",
        ConfigState::Applied => "it runs with this revision",
        ConfigState::Pending => "it has not said yet that it runs with this revision",
        ConfigState::Refused => "it went back to the settings before",
        ConfigState::TooLong => "they are not sent",
    }
}
