"use strict";
// Tables that a reader can sort (a button in each heading) and filter (a field above).
(() => {
  const words = new Intl.Collator("en", { numeric: true });
  const key = (row, column) => {
    const { value } = row.cells[column].dataset;
    return value === undefined ? row.cells[column].textContent.trim() : Number(value);
  };
  // Numbers before words; what is not measured comes last in either direction.
  const compare = (a, b, sign) => {
    const kinds = [a, b].map((one) => (typeof one === "number" ? 0 : one === "" || one === "not measured" ? 2 : 1));
    if (kinds[0] !== kinds[1]) return kinds[0] - kinds[1];
    return sign * (kinds[0] === 0 ? a - b : words.compare(a, b));
  };

  document.querySelectorAll("table.tools").forEach((table) => {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const headings = [...table.tHead.rows[0].cells];

    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = heading.textContent;
      heading.replaceChildren(button);
      button.addEventListener("click", () => {
        const numbers = heading.classList.contains("number");
        const before = heading.getAttribute("aria-sort");
        const order = before ? (before === "descending" ? "ascending" : "descending") : numbers ? "descending" : "ascending";
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const keyed = [...rows].map((row) => [key(row, column), row]);
        body.append(...keyed.sort((a, b) => compare(a[0], b[0], sign)).map(([, row]) => row));
      });
    });

    const bar = document.createElement("div");
    const label = document.createElement("label");
    const field = document.createElement("input");
    const told = document.createElement("output");
    bar.className = "filter";
    label.textContent = "Filter ";
    field.type = "search";
    field.placeholder = "a name";
    field.setAttribute("aria-label", `Filter: ${table.caption.textContent}`);
    label.append(field);
    bar.append(label, told);
    table.closest(".scroll").before(bar);
    const filter = () => {
      const wanted = field.value.trim().toLowerCase();
      rows.forEach((row) => { row.hidden = !row.textContent.toLowerCase().includes(wanted); });
      const left = rows.filter((row) => !row.hidden).length;
      told.textContent = wanted ? `${left} of ${rows.length} rows` : `${rows.length} rows`;
    };
    field.addEventListener("input", filter);
    filter();
  });
})();
