"use strict";
/* Sorting, finding and opening; without it the page shows all the same. */
(() => {
  const table = document.getElementById("fleet");
  const body = table.tBodies[0];
  const sections = [...document.querySelectorAll("details.camera")];
  for (const shy of document.querySelectorAll("[hidden]")) shy.hidden = false;

  const sort = (column, head) => {
    const falling = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const value = (row) => row.cells[column].dataset.v;
    const numbers = head.classList.contains("num") || column === 4 || column === 6;
    const rows = [...body.rows].sort((a, b) =>
      numbers ? value(a) - value(b) : value(a).localeCompare(value(b), "en", { numeric: true }));
    if (falling) rows.reverse();
    body.append(...rows);
  };
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sort(column, head));
    head.replaceChildren(button);
  });

  document.getElementById("find").addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    [...body.rows].forEach((row) => { row.hidden = !row.dataset.name.includes(wanted); });
    for (const one of sections) one.hidden = !one.id.slice(7).toLowerCase().includes(wanted);
  });

  const all = (open) => () => { for (const one of sections) one.open = open; };
  document.getElementById("open").addEventListener("click", all(true));
  document.getElementById("close").addEventListener("click", all(false));

  const arrive = () => {
    const there = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (there instanceof HTMLDetailsElement) {
      there.open = true;
      there.scrollIntoView();
    }
  };
  addEventListener("hashchange", arrive);
  arrive();
})();
