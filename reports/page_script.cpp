#include "reports/html_parts.h"

namespace fla::reports {

// Sorting, filtering and copying. Everything is readable without it.
const char* const kPageScript = R"js(
"use strict";
// The glob of --filter: "*" and "?"; text without them matches anywhere.
function matcher(glob) {
  const escaped = glob.replace(/[.+^${}()|[\]\\]/g, "\\$&");
  if (!/[*?]/.test(glob)) return new RegExp(escaped, "i");
  return new RegExp("^" + escaped.replace(/\*/g, ".*").replace(/\?/g, ".") + "$", "i");
}

function value(body, column) {
  const cell = body.rows[0].cells[column];
  return cell.dataset.v === undefined ? cell.textContent : Number(cell.dataset.v);
}

function order(a, b) {
  if (typeof a === "string") return a.localeCompare(b, "en", { numeric: true });
  if (Number.isNaN(a)) return Number.isNaN(b) ? 0 : 1;
  return Number.isNaN(b) ? -1 : a - b;
}

for (const table of document.querySelectorAll("table.sortable")) {
  table.classList.add("live");
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const rising = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const bodies = [...table.tBodies];
    bodies.sort((a, b) => order(value(a, column), value(b, column)) * (rising ? 1 : -1));
    table.append(...bodies);
  }));
}

for (const bar of document.querySelectorAll(".filter")) {
  bar.hidden = false;
  const input = bar.querySelector("input"), count = bar.querySelector("span");
  const bodies = [...bar.nextElementSibling.tBodies];
  input.addEventListener("input", () => {
    const pattern = matcher(input.value.trim());
    let shown = 0;
    for (const body of bodies) {
      body.hidden = !pattern.test(body.dataset.case);
      shown += body.hidden ? 0 : 1;
    }
    count.textContent = input.value ? shown + " of " + bodies.length : "";
  });
}

for (const code of document.querySelectorAll("dd > code")) {
  const button = document.createElement("button");
  button.textContent = "copy";
  button.addEventListener("click", () => {
    getSelection().selectAllChildren(code);
    document.execCommand("copy");  // unlike the clipboard API it works in pages opened from disk
  });
  code.after(button);
}

function unfold() {
  const target = document.getElementById(location.hash.slice(1));
  if (target && target.tagName === "TBODY") target.querySelector("details").open = true;
}
addEventListener("hashchange", unfold);
unfold();
)js";

}  // namespace fla::reports
