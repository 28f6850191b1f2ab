const $ = selector => document.querySelector(selector), $$ = selector => [...document.querySelectorAll(selector)];

$$("table.sortable").forEach(table => [...table.tHead.rows[0].cells].forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
  const down = head.getAttribute("aria-sort") !== "descending", body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = row => row.cells[column].dataset.value;
  const compare = (a, b) => column ? a - b : a.localeCompare(b);
  // rows without a figure stay below, whichever way the others run
  [...body.rows].sort((a, b) => (key(a) === "") - (key(b) === "") || (down ? -1 : 1) * compare(key(a), key(b))).forEach(row => body.append(row));
})));

const words = text => text.toLowerCase().split(/\s+/).filter(Boolean);
function filterRows() {
  const wanted = words($("#rows").value);
  $$("#board tbody tr").forEach(row => { const name = row.cells[0].dataset.search.toLowerCase(); row.hidden = !wanted.every(word => name.includes(word)); });
}
function filterColumns() {
  const kinds = new Set($$("[name=kind]:checked").map(box => box.value)), benchmarks = new Set($$("[name=benchmark]:checked").map(box => box.value));
  const shown = $$("#board thead th").map((head, column) => column === 0 || kinds.has(head.dataset.kind) && (head.dataset.benchmark === "" || !$("[name=benchmark]") || benchmarks.has(head.dataset.benchmark)));
  [...$("#board").rows].forEach(row => [...row.cells].forEach((cell, column) => { cell.hidden = !shown[column]; }));
}
$("#rows").addEventListener("input", filterRows);
$$("[name=kind], [name=benchmark]").forEach(box => box.addEventListener("change", filterColumns));
filterRows(); filterColumns();

// paired tests between any two rows
const tests = JSON.parse($("#tests").textContent), one = $("#one"), other = $("#other");
function compareRows() {
  const [a, b] = [Number(one.value), Number(other.value)], body = $("#pair tbody");
  body.replaceChildren();
  tests.columns.forEach((column, place) => {
    const found = tests.pairs[place][`${Math.min(a, b)}-${Math.max(a, b)}`];
    const row = body.insertRow();
    const cell = (text, small) => { const td = row.insertCell(); td.textContent = text; if (small) { const line = document.createElement("small"); line.textContent = small; td.append(line); } return td; };
    cell(column);
    if (!found) { cell(a === b ? "the same row" : "no item in common").colSpan = 5; return; }
    let [difference, low, high, won, lost, mcnemar, mcnemarCorrected, p, corrected, items, leftOut] = found;
    if (a > b) [difference, low, high, won, lost] = [-difference, -high, -low, lost, won];
    const points = x => (x < 0 ? "−" : "+") + Math.abs(100 * x).toFixed(1), chance = x => x < 0.001 ? "< 0.001" : x.toFixed(3);
    cell(points(difference), `${points(low)} to ${points(high)}`).className = corrected < tests.level ? "clear" : "";
    cell(chance(p), `corrected ${chance(corrected)}`);
    cell(`${won} : ${lost}`, "won : lost");
    cell(chance(mcnemar), `corrected ${chance(mcnemarCorrected)}`);
    cell(items.toLocaleString("en"), leftOut ? `${leftOut.toLocaleString("en")} left out` : "");
  });
}
if (one) { [one, other].forEach(select => select.addEventListener("change", compareRows)); compareRows(); }
