"use strict";
const data = name => JSON.parse(document.getElementById(name).textContent);
const figures = data("figures"), runs = data("runs"), messages = data("messages");
for (const [name, figure] of Object.entries(figures))
  Plotly.newPlot("chart-" + name, figure.data, figure.layout, {responsive: true, displaylogo: false, displayModeBar: false});

// Whatever a model said is set as text, never as HTML.
function make(tag, text, kind, ...children) {
  const made = document.createElement(tag);
  if (text !== null && text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  made.append(...children);
  return made;
}
// A long text begins, and goes on at a click: a megabyte takes a browser seconds to lay out.
const LONG = 20000;
function long(text) {
  const block = make("pre", text.slice(0, LONG));
  if (text.length <= LONG) return [block];
  const button = make("button", `show all ${text.length.toLocaleString("en")} characters`);
  button.addEventListener("click", () => { block.textContent = text; button.remove(); });
  return [block, button];
}
const short = value => value === null || value === undefined ? "–" : String(Math.round(value * 1e4) / 1e4);
const place = document.getElementById("run");
const picks = ["item", "arm", "seed"].map(name => document.getElementById(name)).filter(pick => pick);
for (const pick of picks) {
  for (const text of new Set(runs.map(run => String(run[pick.id])))) pick.append(new Option(text, text));  // its value keeps blanks
  pick.addEventListener("change", show);
}
function show() {
  const run = runs.find(run => picks.every(pick => String(run[pick.id]) === pick.value));
  place.replaceChildren();
  if (!run) return place.append(make("p", "There is no such run on this page.", "dim"));
  if (picks.length) {
    place.append(...long(messages[run.task][1]));
    place.append(make("p", `reward ${short(run.reward)}, metric ${short(run.metric)}, stopped by ${run.stopped}`));
  }
  for (const attempt of run.attempts) place.append(one(attempt, attempt.round === run.chosen));
}
function one(attempt, chosen) {
  const head = make("div", null, "head", make("b", `round ${attempt.round}`), make("span", attempt.instruction, "dim"),
    make("span", `reward ${short(attempt.reward)}`), make("span", `metric ${short(attempt.metric)}`));
  if (attempt.model) head.append(make("span", `by ${attempt.model}`));
  if (attempt.shown !== attempt.reward) head.append(make("span", `shown as ${short(attempt.shown)}`));
  if (attempt.passes.length) head.append(make("span", `passes ${attempt.passes.map(short).join(", ")}`));
  if (attempt.retests.length) head.append(make("span", `judged again ${attempt.retests.map(short).join(", ")}`));
  if (attempt.steps.length) head.append(make("span", `steps ${attempt.steps.map(short).join(", ")}`));
  head.append(make("span", Object.entries(attempt.cost).map(([name, amount]) => `${name} ${short(amount)}`).join(", "), "dim"));
  if (chosen) head.append(make("b", "the answer"));
  const block = make("div", null, "attempt" + (chosen ? " chosen" : ""), head);
  if (attempt.reasoning) block.append(folded("reasoning", () => long(attempt.reasoning)));
  if (attempt.response !== null) block.append(...long(attempt.response));
  if (attempt.cut) block.append(make("p", "Cut off at its limit of tokens.", "error"));
  if (attempt.warning) block.append(make("p", attempt.warning, "error"));
  if (attempt.error) block.append(make("p", attempt.error, "error"));
  if (attempt.feedback && attempt.feedback.length > LONG) block.append(make("p", "Feedback:", "dim"), ...long(attempt.feedback));
  else if (attempt.feedback) block.append(make("p", `Feedback: ${attempt.feedback}`));
  if (attempt.reflection) block.append(make("p", "Reflection:", "dim"), ...long(attempt.reflection));
  const prompt = attempt.played ? "prompt, which the episode's turns follow" : "prompt";
  const read = () => attempt.prompt.flatMap(at => [make("div", messages[at][0], "role"), ...long(messages[at][1])]);
  if (attempt.prompt.length) block.append(folded(prompt, read));
  return block;
}
// What is made only once it is opened.
function folded(name, content) {
  const made = make("details", null, "", make("summary", name));
  made.addEventListener("toggle", () => { if (made.childElementCount === 1) made.append(...content()); });
  return made;
}
show();

// A click on a heading sorts by its column: the largest first, the smallest first, and as it was.
function sortable(table) {
  const body = table.tBodies[0], before = [...body.rows], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = make("button", null, "", ...head.childNodes);
    button.title = "sort by this column";
    head.append(button);
    button.addEventListener("click", () => {
      const next = {descending: "ascending", ascending: "none"}[head.ariaSort] || "descending";
      for (const other of heads) other.ariaSort = "none";
      head.ariaSort = next;
      const order = next === "ascending" ? 1 : -1;
      body.append(...(next === "none" ? before : [...before].sort((one, other) => compare(one, other, column, order))));
    });
  });
}
function compare(one, other, column, order) {
  const [a, b] = [one, other].map(row => row.cells[column].textContent.trim());
  const [x, y] = [a, b].map(text => column === 0 ? NaN : parseFloat(text.replace(/^< /, "").replaceAll(",", "")));
  if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;  // what is not known stands last
  return order * (Number.isNaN(x) ? a.localeCompare(b, "en", {numeric: true}) : x - y);
}
document.querySelectorAll("table.sortable").forEach(sortable);

// A table that is wider than the page says so.
for (const wide of document.querySelectorAll(".wide")) {
  const hint = make("p", "Wider than the page: scroll sideways \u2194", "hint dim");
  wide.before(hint);
  const look = () => {
    const hidden = wide.scrollWidth - wide.clientWidth;
    hint.hidden = hidden <= 1;
    wide.classList.toggle("more", hidden - wide.scrollLeft > 1);
  };
  wide.addEventListener("scroll", look, {passive: true});
  new ResizeObserver(look).observe(wide);
  look();
}
