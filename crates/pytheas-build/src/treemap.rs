//! A page that shows what a built tree's bytes are spent on: a squarified treemap (Bruls, Huizing,
//! van Wijk 2000) of packages and their modules, and the same as a table. One file of HTML without
//! anything from a network; without scripts it still shows map and table, only not the zoom.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::{budget::shown_bytes, explain::Check};

/// A rectangle in percent of the map.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Area {
    x: f64,
    y: f64,
    w: f64,
    h: f64,
}

/// The page for the tree of the app `name`.
pub fn treemap(name: &str, check: &Check) -> String {
    let mut packages: BTreeMap<&str, Vec<(&str, u64)>> = BTreeMap::new();
    for part in &check.sizes {
        packages
            .entry(&part.package)
            .or_default()
            .push((&part.module, part.size_bytes));
    }
    let mut packages: Vec<_> = packages
        .into_iter()
        .map(|(package, modules)| {
            let size: u64 = modules.iter().map(|(_, size)| *size).sum();
            (package, modules, size)
        })
        .filter(|(_, _, size)| *size > 0)
        .collect();
    packages.sort_by(|a, b| b.2.cmp(&a.2).then_with(|| a.0.cmp(b.0)));
    let sizes: Vec<u64> = packages.iter().map(|(_, _, size)| *size).collect();
    let places = squarified(&sizes, 1.6);
    let mut map = String::new();
    let mut rows = String::new();
    for (index, ((package, modules, size), place)) in packages.iter().zip(&places).enumerate() {
        let hue = (index * 47) % 360;
        let label = format!("{} {}", escaped(package), shown_bytes(*size));
        // Writing to a string does not fail.
        let _ = write!(
            map,
            "<section style=\"{};--h:{hue}\"><button type=\"button\" title=\"{label}\">{label}</button><div>",
            style(*place)
        );
        let sizes: Vec<u64> = modules.iter().map(|(_, size)| *size).collect();
        let ratio = 1.6 * place.w / place.h.max(0.01);
        for ((module, size), place) in modules.iter().zip(squarified(&sizes, ratio)) {
            let label = format!("{} {}", escaped(module), shown_bytes(*size));
            let _ = write!(
                map,
                "<i style=\"{}\" title=\"{label}\">{label}</i>",
                style(place)
            );
            let _ = writeln!(
                rows,
                "<tr><td>{}<td>{}<td class=n>{}",
                escaped(package),
                escaped(module),
                shown_bytes(*size)
            );
        }
        map.push_str("</div></section>\n");
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n<link rel=\"icon\" href=\"data:,\">\n<title>{name}: {total}</title>\n<style>{STYLE}</style>\n<main>\n<h1>{name} <small>{total}</small></h1>\n<p>Each area is as large as its files. Choose a package to see it alone, again to go back.\n<div id=\"map\" role=\"group\" aria-label=\"Packages by size\">\n{map}</div>\n<h2>The same as a table</h2>\n<table><thead><tr><th scope=col>Package<th scope=col>Module<th scope=col>Size</thead>\n<tbody>\n{rows}</tbody></table>\n</main>\n<script>{SCRIPT}</script>\n</html>\n",
        name = escaped(name),
        total = shown_bytes(check.size_bytes),
    )
}

const STYLE: &str = "
:root{color-scheme:light dark;font:15px/1.5 system-ui,sans-serif}
body{margin:0}main{max-width:80rem;margin:auto;padding:1rem}h1 small{font-weight:400;opacity:.7}
#map{position:relative;aspect-ratio:1.6;overflow:hidden}
section,i{position:absolute;overflow:hidden;box-sizing:border-box}
section{border:1px solid Canvas;background:hsl(var(--h) 45% 32%);color:#fff}
section>button{display:block;width:100%;height:1.5rem;padding:0 .3rem;border:0;background:none;color:inherit;font:inherit;font-size:.8rem;text-align:left;white-space:nowrap;overflow:hidden;cursor:pointer}
section>button:focus-visible{outline:2px solid #fff;outline-offset:-2px}
section>div{position:absolute;inset:1.5rem 0 0}
i{border:1px solid hsl(var(--h) 45% 32%);background:hsl(var(--h) 45% 42%);padding:0 .2rem;font:normal .7rem/1.3 system-ui,sans-serif}
.one>section{display:none}.one>section.on{display:block;left:0!important;top:0!important;width:100%!important;height:100%!important}
table{border-collapse:collapse}td,th{padding:.1rem 1rem .1rem 0;text-align:left}.n{text-align:right;font-variant-numeric:tabular-nums}
";

const SCRIPT: &str = "
const map=document.getElementById('map');
map.addEventListener('click',event=>{
  const section=event.target.closest('section');
  if(!section)return;
  const on=section.classList.toggle('on');
  map.classList.toggle('one',on);
  section.querySelector('button').setAttribute('aria-expanded',on);
});
document.addEventListener('keydown',event=>{
  if(event.key!=='Escape')return;
  map.classList.remove('one');
  for(const section of map.querySelectorAll('.on')){section.classList.remove('on');section.querySelector('button').setAttribute('aria-expanded',false);}
});
";

fn style(area: Area) -> String {
    format!(
        "left:{:.3}%;top:{:.3}%;width:{:.3}%;height:{:.3}%",
        area.x, area.y, area.w, area.h
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// Areas for `sizes` (the largest first) in a map that is `ratio` times as wide as high.
fn squarified(sizes: &[u64], ratio: f64) -> Vec<Area> {
    let total: f64 = sizes.iter().map(|size| *size as f64).sum();
    if total <= 0.0 {
        let none = Area {
            x: 0.0,
            y: 0.0,
            w: 0.0,
            h: 0.0,
        };
        return vec![none; sizes.len()];
    }
    // Laid out in a rectangle of the true proportions, then stretched to percent.
    let ratio = ratio.clamp(0.01, 100.0);
    let mut free = Area {
        x: 0.0,
        y: 0.0,
        w: ratio,
        h: 1.0,
    };
    let areas: Vec<f64> = sizes
        .iter()
        .map(|size| *size as f64 / total * ratio)
        .collect();
    let mut placed = Vec::with_capacity(areas.len());
    let mut from = 0;
    while from < areas.len() {
        let side = free.w.min(free.h).max(1e-9);
        let worst = |row: &[f64]| {
            let sum: f64 = row.iter().sum();
            let thick = sum / side;
            row.iter()
                .map(|area| {
                    let long = area / thick.max(1e-12);
                    (long / thick).max(thick / long.max(1e-12))
                })
                .fold(0.0, f64::max)
        };
        let mut end = from + 1;
        while end < areas.len() && worst(&areas[from..=end]) <= worst(&areas[from..end]) {
            end += 1;
        }
        let row = &areas[from..end];
        let thick = row.iter().sum::<f64>() / side;
        let is_column = free.w >= free.h;
        let mut at = 0.0;
        for area in row {
            let long = area / thick.max(1e-12);
            let place = if is_column {
                Area {
                    x: free.x,
                    y: free.y + at,
                    w: thick,
                    h: long,
                }
            } else {
                Area {
                    x: free.x + at,
                    y: free.y,
                    w: long,
                    h: thick,
                }
            };
            at += long;
            placed.push(Area {
                x: place.x / ratio * 100.0,
                y: place.y * 100.0,
                w: place.w / ratio * 100.0,
                h: place.h * 100.0,
            });
        }
        if is_column {
            free.x += thick;
            free.w = (free.w - thick).max(0.0);
        } else {
            free.y += thick;
            free.h = (free.h - thick).max(0.0);
        }
        from = end;
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_as_large_as_what_they_stand_for_and_fill_the_map() {
        let sizes = [60, 30, 25, 20, 10, 5, 1, 0];
        let areas = squarified(&sizes, 1.6);
        let sum: u64 = sizes.iter().sum();
        for (size, area) in sizes.iter().zip(&areas) {
            let share = area.w * area.h / 10_000.0;
            assert!((share - *size as f64 / sum as f64).abs() < 1e-6, "{area:?}");
            assert!(area.x + area.w < 100.001 && area.y + area.h < 100.001);
        }
    }

    #[test]
    fn names_cannot_end_the_markup() {
        assert_eq!(escaped("<b>\"&"), "&lt;b&gt;&quot;&amp;");
    }
}
