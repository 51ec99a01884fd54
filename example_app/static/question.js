// What is asked of a country's airports: the fields of the form, and the filters that they mean.

import { number } from "./element.js";

export class Question {
  constructor(form, { onAsk }) {
    this.form = form;
    const at = (id) => form.querySelector(`#${id}`);
    this.fields = { words: at("words"), region: at("region"), sort: at("sort"), above: at("above"), iata: at("iata"), open: at("open") };
    this.onAsk = onAsk;
    this.toggle = at("more-fields");
    const soon = afterwards(() => this.asked(), 180);
    for (const name of ["words", "above"]) this.fields[name].addEventListener("input", soon);
    for (const name of ["region", "sort", "iata", "open"]) this.fields[name].addEventListener("change", () => this.asked());
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.asked();
    });
    this.toggle.addEventListener("click", () => {
      const shown = this.form.classList.toggle("unfolded");
      this.toggle.setAttribute("aria-expanded", String(shown));
    });
  }

  asked() {
    this.note();
    this.onAsk();
  }

  // How many of the fields that may be folded say something.
  note() {
    const { region, above, iata, open } = this.fields;
    const used = [region.value, above.value, iata.checked, open.checked].filter(Boolean).length;
    this.toggle.textContent = used ? `Filters (${used})` : "Filters";
  }

  // From the address. The other regions are known only later, so `offer` adds them.
  fill(values) {
    const regions = values.region ? [new Option(values.region)] : [];
    this.fields.region.replaceChildren(new Option("All", ""), ...regions);
    this.fields.region.value = values.region ?? "";
    for (const [name, field] of Object.entries(this.fields)) {
      if (field.type === "checkbox") field.checked = name in values;
      else if (name !== "region") field.value = values[name] ?? (name === "sort" ? "name" : "");
    }
    if (!this.fields.sort.value) this.fields.sort.value = "name";
    this.note();
  }

  // The regions with their numbers of airports that match the other filters, most first. The chosen one stays.
  offer(facet) {
    const { region } = this.fields;
    const chosen = region.value;
    const regions = facet.filter(({ value }) => value !== null);
    if (chosen && !regions.some(({ value }) => value === chosen)) regions.push({ value: chosen, count: 0 });
    const options = regions.map(({ value, count }) => new Option(`${value} (${number.format(count)})`, value));
    region.replaceChildren(new Option("All", ""), ...options);
    region.value = chosen;
  }

  get sort() {
    return this.fields.sort.value;
  }

  // The filters without the region, under which all regions are counted.
  get otherFilters() {
    const { region, ...others } = this.filters;
    return others;
  }

  get filters() {
    const { words, region, above, iata, open } = this.fields;
    const folded = foldedWords(words.value);
    return {
      keywords__like: folded.length ? `%${folded.join("%")}%` : "",
      region: region.value,
      elevation_ft__gte: above.validity.valid ? above.value : "",
      iata__is_null: iata.checked ? "false" : "",
      "inspections.status": open.checked ? "open" : "",
    };
  }

  // For the address, where a field that says nothing is left out.
  get values() {
    const { words, region, sort, above, iata, open } = this.fields;
    return {
      words: words.value.trim(),
      region: region.value,
      sort: sort.value === "name" ? "" : sort.value,
      above: above.value,
      iata: iata.checked ? "1" : "",
      open: open.checked ? "1" : "",
    };
  }
}

// As the server folds names when it loads them: small letters, no accents. Words may have anything between them.
function foldedWords(text) {
  const plain = text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  return plain.replace(/[%_\\]/g, " ").trim().split(/\s+/).filter(Boolean);
}

function afterwards(work, milliseconds) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, milliseconds);
  };
}
