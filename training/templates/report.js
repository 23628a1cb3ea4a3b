"use strict";
document.documentElement.classList.add("scripted");

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (head.dataset.fixed !== undefined) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      // Names rise first, figures fall first: what is looked for is at the top after one click.
      const text = head.classList.contains("text");
      const rising = head.ariaSort ? head.ariaSort === "descending" : text;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const compare = text
        ? (one, other) => value(one).localeCompare(value(other))
        : (one, other) => Number(value(one)) - Number(value(other));
      body.append(...[...body.rows].sort((one, other) => (rising ? compare(one, other) : compare(other, one))));
    });
  });
}

const matrix = document.getElementById("matrix");
if (matrix) {
  const { labels, support, orders, cells } = JSON.parse(document.getElementById("confusion-data").textContent);
  const [size, margin] = [Number(matrix.dataset.size), Number(matrix.dataset.margin)];
  const drawn = [...matrix.querySelectorAll("[data-cell]")];
  const names = [...matrix.querySelectorAll(".name")];
  const cursor = matrix.querySelector(".cursor");
  const told = document.getElementById("told");
  const heading = document.getElementById("listed");
  const texts = document.getElementById("texts");
  const hide = document.getElementById("hide");
  const mistakesOnly = document.getElementById("mistakes-only");
  const found = new Map(cells.map((cell) => [cell[0] * labels.length + cell[1], cell]));
  let order = orders.confusion;
  let [down, across] = [0, 0]; // where the cursor is, in the order that is shown
  let listed = null; // the cell whose texts are told

  const cellAt = (row, column) => {
    const [actual, given] = [order[row], order[column]];
    return found.get(actual * labels.length + given) ?? [actual, given, 0, []];
  };
  const shows = (cell) => cell[2] > 0 && !(mistakesOnly.checked && cell[0] === cell[1]);

  function arrange() {
    const place = [];
    order.forEach((label, position) => (place[label] = position));
    for (const rect of drawn) {
      const [actual, given] = cells[rect.dataset.cell];
      rect.setAttribute("x", margin + size * place[given]);
      rect.setAttribute("y", margin + size * place[actual]);
    }
    for (const name of names) {
      const middle = margin + size * (place[name.dataset.label] + 0.5);
      const aside = margin - 5;
      const where = name.classList.contains("true") ? `${aside} ${middle}` : `${middle} ${aside}`;
      name.setAttribute("transform", `translate(${where})${name.classList.contains("given") ? " rotate(-90)" : ""}`);
    }
  }

  function shade() {
    matrix.classList.toggle("mistakes", mistakesOnly.checked);
    const shares = cells.map(([actual, given, rows]) => (mistakesOnly.checked && actual === given ? 0 : rows / support[actual]));
    const largest = shares.reduce((one, other) => Math.max(one, other), 0) || 1;
    for (const rect of drawn) {
      rect.setAttribute("fill-opacity", 0.3 + 0.7 * Math.sqrt(shares[rect.dataset.cell] / largest));
    }
  }

  function point(row, column) {
    [down, across] = [row, column];
    const [actual, given, rows] = cellAt(row, column);
    cursor.setAttribute("x", margin + size * column);
    cursor.setAttribute("y", margin + size * row);
    cursor.setAttribute("visibility", "visible");
    for (const name of names) {
      const label = Number(name.dataset.label);
      name.classList.toggle("on", label === (name.classList.contains("true") ? actual : given));
    }
    told.replaceChildren(...say(actual, given, rows));
    told.classList.toggle("unseen", listed !== null && actual === listed[0] && given === listed[1]);
  }

  // Texts are data, never markup; whatever script they are in, what stands beside them keeps its order.
  function isolated(text) {
    const element = document.createElement("bdi");
    element.textContent = text;
    return element;
  }

  function say(actual, given, rows) {
    const share = support[actual] ? `, ${((100 * rows) / support[actual]).toFixed(1)} % of that label` : "";
    const count = `: ${rows} row${rows === 1 ? "" : "s"}${share}`;
    return ["true ", isolated(labels[actual]), ", given ", isolated(labels[given]), count];
  }

  function list() {
    const [actual, given, rows, examples] = cellAt(down, across);
    const items = examples.map(([text, probability]) => {
      const item = document.createElement("li");
      const note = document.createElement("span");
      note.className = "soft";
      note.append(" ", isolated(labels[given]), `: ${probability.toFixed(2)}`);
      item.append(isolated(text), note);
      return item;
    });
    const which = actual === given ? "least" : "most";
    const shown = examples.length < rows ? `; ${examples.length} of them shown, those it was ${which} sure of` : "";
    listed = [actual, given];
    heading.replaceChildren(...say(actual, given, rows), shown);
    texts.replaceChildren(...items);
    hide.hidden = false;
    told.classList.add("unseen"); // the heading says the same
  }

  function unlist() {
    listed = null;
    heading.textContent = "";
    texts.replaceChildren();
    hide.hidden = true;
    told.classList.remove("unseen");
  }

  const clamp = (value) => Math.max(0, Math.min(labels.length - 1, value));
  function under(event, reach) {
    const box = matrix.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left - margin) / size, (event.clientY - box.top - margin) / size];
    const inside = x >= 0 && y >= 0 && x < labels.length && y < labels.length;
    let best = inside ? [Math.floor(y), Math.floor(x)] : null;
    if (!best || !reach || shows(cellAt(...best))) return best;
    // A finger is wider than a cell: take the nearest one that holds something.
    let nearest = reach / size;
    for (let row = clamp(Math.floor(y - nearest)); row <= clamp(Math.floor(y + nearest)); row++) {
      for (let column = clamp(Math.floor(x - nearest)); column <= clamp(Math.floor(x + nearest)); column++) {
        const away = Math.hypot(x - column - 0.5, y - row - 0.5);
        if (away < nearest && shows(cellAt(row, column))) [nearest, best] = [away, [row, column]];
      }
    }
    return best;
  }

  matrix.setAttribute("tabindex", "0");
  matrix.setAttribute("role", "application");
  matrix.setAttribute("aria-label", `Confusion matrix of ${labels.length} labels. Arrow keys move, Page Down and Page Up go to the next and the previous mistake, Enter lists texts, Escape hides them.`);
  matrix.setAttribute("aria-describedby", "told");
  matrix.addEventListener("pointermove", (event) => {
    const place = event.pointerType !== "touch" && under(event, 0);
    if (place) point(...place);
  });
  matrix.addEventListener("click", (event) => {
    const place = under(event, event.pointerType === "touch" ? 14 : 0);
    if (!place) return;
    point(...place);
    list();
  });
  matrix.addEventListener("focus", () => point(down, across));
  matrix.addEventListener("keydown", (event) => {
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const last = labels.length - 1;
    if (steps[event.key]) point(clamp(down + steps[event.key][0]), clamp(across + steps[event.key][1]));
    else if (event.key === "Home") point(down, 0);
    else if (event.key === "End") point(down, last);
    else if (event.key === "PageDown" || event.key === "PageUp") {
      const step = event.key === "PageDown" ? 1 : -1;
      const count = labels.length ** 2;
      for (let at = down * labels.length + across + step; at >= 0 && at < count; at += step) {
        const [row, column] = [Math.floor(at / labels.length), at % labels.length];
        if (row !== column && cellAt(row, column)[2]) {
          point(row, column);
          break;
        }
      }
    } else if (event.key === "Enter" || event.key === " ") list();
    else if (event.key === "Escape") unlist();
    else return;
    cursor.scrollIntoView?.({ block: "nearest", inline: "nearest" });
    event.preventDefault();
  });
  document.getElementById("order").addEventListener("change", (event) => {
    order = orders[event.target.value];
    arrange();
    cursor.setAttribute("visibility", "hidden");
  });
  mistakesOnly.addEventListener("change", shade);
  hide.addEventListener("click", unlist);
}
