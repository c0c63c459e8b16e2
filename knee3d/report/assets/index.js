/* Sorts and filters the table of knees. All knees are in the file; those that are shown are in the table, few at a time. */
(function () {
  "use strict";
  const STEP = 200;
  const table = document.getElementById("knees");
  const body = table.tBodies[0];
  const buttons = Array.from(table.tHead.querySelectorAll("button"));
  const filter = document.getElementById("filter");
  const flagged = document.getElementById("flagged");
  const shown = document.getElementById("shown");
  const more = document.getElementById("more");
  const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  const knees = Array.from(body.rows, (row) => ({
    row,
    words: row.textContent.toLowerCase(),
    flagged: row.classList.contains("flagged"),
    values: Array.from(row.cells, value),
  }));
  let limit = STEP;

  function value(cell) {
    if (!("value" in cell.dataset)) return cell.textContent;
    return cell.dataset.value === "" ? NaN : Number(cell.dataset.value);
  }

  /* What is not known stays at the end, whichever way the rest is sorted. */
  function compare(a, b, down) {
    if (typeof a === "string") return down ? collator.compare(b, a) : collator.compare(a, b);
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
    return down ? b - a : a - b;
  }

  function sort(button) {
    const down = button.parentElement.getAttribute("aria-sort") === "ascending";
    const column = Number(button.dataset.column);
    buttons.forEach((one) => one.parentElement.setAttribute("aria-sort", "none"));
    button.parentElement.setAttribute("aria-sort", down ? "descending" : "ascending");
    knees.sort((a, b) => compare(a.values[column], b.values[column], down));
    limit = STEP;
    show();
  }

  function show() {
    const wanted = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = knees.filter((knee) => (!flagged.checked || knee.flagged) && wanted.every((word) => knee.words.includes(word)));
    const some = found.slice(0, limit);
    body.replaceChildren(...some.map((knee) => knee.row));
    more.hidden = some.length === found.length;
    const count = (number) => number.toLocaleString("en");
    const first = more.hidden ? "" : `, the first ${count(some.length)} of them shown`;
    shown.textContent = `${count(found.length)} of ${count(knees.length)} knees${first}`;
  }

  function again() {
    limit = STEP;
    show();
  }

  buttons.forEach((button) => button.addEventListener("click", () => sort(button)));
  filter.form.addEventListener("submit", (event) => event.preventDefault());
  filter.addEventListener("input", again);
  flagged.addEventListener("change", again);
  more.addEventListener("click", () => { limit += STEP; show(); });
  show();
})();
