const $ = selector => document.querySelector(selector);
const index = JSON.parse($("#index").textContent).map(([id, task, state, cut, round, sample, part, place]) => ({ id, task, state, cut, round, sample, part, place }));
const A_PAGE = 20, LONG = 4000, parts = {}, waiting = {};
let first = 0, drawn = 0;

// a page opened from disk may not fetch its neighbours, but may load scripts: each part calls this
window.part = (number, data) => { parts[number] = data; waiting[number].forEach(done => done()); };
const load = number => parts[number] ? null : new Promise((done, failed) => {
  if (waiting[number]) { waiting[number].push(done); return; }
  waiting[number] = [done];
  const script = document.createElement("script");
  script.src = `part-${number}.js`;
  script.onerror = () => failed(new Error(`part-${number}.js is missing beside this page`));
  document.head.append(script);
});

const element = (name, text, className) => { const made = document.createElement(name); made.textContent = text ?? ""; if (className) made.className = className; return made; };
function long(text) {
  const box = element("div"), pre = element("pre", text.slice(0, LONG));
  box.append(pre);
  if (text.length > LONG) {
    const more = element("button", `show all ${text.length.toLocaleString("en")} characters`, "more");
    more.addEventListener("click", () => { pre.textContent = text; more.remove(); });
    box.append(more);
  }
  return box;
}
function folded(title, fill) {
  const details = element("details");
  details.append(element("summary", title));
  details.addEventListener("toggle", () => { if (details.open && details.children.length === 1) details.append(...fill()); });
  return details;
}
function shown(entry) {
  const { starts, samples } = parts[entry.part], sample = samples[entry.place], box = element("article"), head = element("header"), facts = element("dl");
  head.append(element("span", entry.state, `state ${entry.state}`));
  if (entry.cut) head.append(element("span", "truncated", "state cut"));
  head.append(element("b", entry.id.slice(0, 200)), element("small", entry.task.slice(0, 200)));
  if (entry.round) head.append(element("small", `round ${entry.round + 1}`));
  if (entry.sample) head.append(element("small", `sample ${entry.sample + 1}`));
  const fact = (name, text) => { const dd = element("dd"); dd.append(long(String(text))); facts.append(element("dt", name), dd); };
  if (sample.answer === null) facts.append(element("dt", "answer read"), element("dd", "none", "soft")); else fact("answer read", sample.answer);
  if (sample.right !== null) fact("right answer", sample.right);
  const details = [sample.score === null ? "" : `score ${Number(sample.score.toFixed(3))}`, sample.tokens ? `${sample.tokens} tokens` : "", sample.finish && sample.finish !== "unknown" ? `ended by ${sample.finish}` : "", (sample.seed ?? null) === null ? "" : `seed ${sample.seed}`];
  box.append(head, folded("prompt", () => sample.prompt.flatMap(([role, start, rest]) => [element("small", role), long(starts[start] + rest)])), long(sample.completion), facts, element("small", details.filter(Boolean).join(" · ")));
  return box;
}

const show = $("#show"), task = $("#task"), search = $("#search");
const fits = { all: () => true, truncated: entry => entry.cut };
const is = (entry, state) => (fits[state] ?? (one => one.state === state))(entry);
["all", "right", "partly", "wrong", "unparsed", "truncated", "unjudged"].forEach(state => {
  const count = index.filter(entry => is(entry, state)).length;
  if (count || state === "all") show.append(new Option(`${state} (${count.toLocaleString("en")})`, state));
});
task.append(new Option("all tasks", ""));
[...new Set(index.map(entry => entry.task))].sort().forEach(name => task.append(new Option(name, name)));

async function draw() {
  const now = ++drawn, words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = index.filter(entry => is(entry, show.value) && (!task.value || entry.task === task.value) && words.every(word => entry.id.toLowerCase().includes(word)));
  first = Math.max(0, Math.min(first, found.length - 1));
  first -= first % A_PAGE;
  const page = found.slice(first, first + A_PAGE);
  const text = n => n.toLocaleString("en");
  try { await Promise.all(page.map(entry => load(entry.part))); } catch (error) { $("#list").replaceChildren(element("p", error.message)); return; }
  if (now !== drawn) return; // something else was chosen while the parts were loading
  $("#list").replaceChildren(...page.map(shown));
  $("#count").textContent = found.length ? `${text(first + 1)}–${text(first + page.length)} of ${text(found.length)}` : "no sample like that";
  $("#back").disabled = first === 0;
  $("#on").disabled = first + A_PAGE >= found.length;
}
function fromAddress() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  show.value = wanted.get("show") ?? "all"; if (!show.value) show.value = "all";
  task.value = wanted.get("task") ?? ""; if (task.selectedIndex < 0) task.value = "";
  first = 0; draw();
}
[show, task].forEach(select => select.addEventListener("change", () => { first = 0; draw(); }));
search.addEventListener("input", () => { first = 0; draw(); });
$("#back").addEventListener("click", () => { first -= A_PAGE; draw(); });
$("#on").addEventListener("click", () => { first += A_PAGE; draw(); scrollTo(0, 0); });
addEventListener("hashchange", fromAddress);
fromAddress();
