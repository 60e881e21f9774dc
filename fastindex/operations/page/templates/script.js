"use strict";
(() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const one = (selector) => document.querySelector(selector);
  const day = 864e5;
  const midnight = (moment) => new Date(moment.getFullYear(), moment.getMonth(), moment.getDate());
  const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

  // What is searched: before more is put into the rows.
  const sections = all(".os").map((section, number) => ({
    section,
    chip: all(".systems li")[number],
    counts: [section.querySelector("h2 span")],
    rows: [...section.querySelectorAll("tbody tr")].map((row) => ({
      row,
      text: (section.querySelector("h2 bdi").textContent + " " + row.textContent).toLowerCase(),
      arch: row.querySelector(".a").textContent,
      types: (row.querySelector(".c") ? "c" : "") + (row.querySelector(".v") ? "v" : ""),
    })),
  }));

  // Dates become ages here: the page itself is the same every day.
  const tellAge = (days) => {
    if (days < 14) return relative.format(-days, "day");
    if (days < 60) return relative.format(-Math.floor(days / 7), "week");
    if (days < 730) return relative.format(-Math.floor(days / 30.44), "month");
    return relative.format(-Math.floor(days / 365.25), "year");
  };
  for (const time of all("td time:not(.eol)")) {
    const days = Math.round((midnight(new Date()) - midnight(new Date(time.dateTime))) / day);
    const age = document.createElement("span");
    age.className = "age" + (days < 8 ? " fresh" : days < 60 ? "" : days < 365 ? " stale" : " old");
    age.textContent = tellAge(days);
    time.after(" ", age);
  }
  for (const time of all("time.eol")) {
    if (Date.parse(time.dateTime) + day < Date.now()) {
      time.classList.add("ended");
      time.textContent = "ended " + time.dateTime;
    }
  }

  // The address of the mirror is where this page is.
  if (location.protocol.startsWith("http")) {
    const address = new URL(".", location.href);
    const url = (address.origin + address.pathname).replace(/\/+$/, "");
    const quoted = /[^A-Za-z0-9@%+=:,./_-]/.test(url) ? "'" + url.replaceAll("'", "'\"'\"'") + "'" : url;
    for (const place of all(".url")) place.textContent = quoted;
  }

  // Lines can be copied.
  const told = one("#told");
  const copy = async (button, text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      area.className = "away";
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      button.focus();
    }
    button.textContent = "Copied";
    told.textContent = "Copied: " + text;
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  };
  const client = () => one("input[name=client]:checked")?.value ?? "incus";
  const getText = (code) => {
    if (!code.dataset.t) return code.textContent;
    return [client(), "launch", code.dataset.t, code.dataset.m].filter(Boolean).join(" ");
  };
  for (const code of all(".line code, code[data-t]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.setAttribute("aria-label", "Copy the line for " + (code.dataset.t ?? code.textContent));
    code.after(button);
  }
  document.addEventListener("click", (event) => {
    const button = event.target.closest("code + button");
    if (button) copy(button, getText(button.previousElementSibling));
  });

  // Search and filter.
  const filter = one(".filter");
  if (!filter) return;
  const query = one("#q"), arch = one("#arch"), type = one("#type");
  const none = one(".none"), count = one("#count");
  const names = new Set(sections.flatMap(({ rows }) => rows.map((row) => row.arch)));
  for (const name of [...names].sort()) arch.add(new Option(name, name));

  const apply = () => {
    const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const { section, chip, counts, rows } of sections) {
      let here = 0;
      for (const { row, text, arch: rowArch, types } of rows) {
        const fits = (!arch.value || rowArch === arch.value) && types.includes(type.value) &&
          words.every((word) => text.includes(word));
        if (row.hidden === fits) row.hidden = !fits;
        here += fits;
      }
      section.hidden = here === 0;
      if (chip) {
        chip.hidden = here === 0;
        chip.querySelector("span").textContent = here;
      }
      counts[0].textContent = here;
      shown += here;
    }
    none.hidden = shown > 0;
    count.textContent = shown.toLocaleString("en") + (shown === 1 ? " image" : " images");
  };
  const remember = () => {
    const state = new URLSearchParams();
    for (const field of [query, arch, type]) if (field.value) state.set(field.id, field.value);
    const search = state.toString();
    try {
      history.replaceState(null, "", (search ? "?" + search : location.pathname) + location.hash);
    } catch { /* as in a file */ }
  };
  const state = new URLSearchParams(location.search);
  for (const field of [query, arch, type]) if (state.has(field.id)) field.value = state.get(field.id);
  filter.hidden = false;
  filter.addEventListener("input", () => { apply(); remember(); });
  none.querySelector("button").addEventListener("click", () => {
    query.value = arch.value = type.value = "";
    apply();
    remember();
    query.focus();
  });
  if (state.size) apply();
})();
