// The order of what the search finds. The numbers are Sphinx's where no comment says otherwise.
var Scorer = {
  objNameMatch: 11,
  objPartialMatch: 6,
  // Sphinx has 15 for modules: here the page about a subject comes before the module of that name.
  objPrio: { 0: 5, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
  score: ([page, , anchor, , score, , kind]) => {
    // The query is most of a page's title; the title of a section has an anchor.
    if (kind === "title" && !anchor) score += 6;
    if (/^docs\/(guides|concepts|get_started)/.test(page)) score += 3;
    if (page.startsWith("docs/recipes/")) score += 2;
    // Of objects with one name, Python's comes first.
    if (/^docs\/reference\/(c_api|capi|cpp|cli)/.test(page)) score -= 5;
    // Pages with a word on everything.
    if (/^(CHANGELOG|CONTRIBUTING|README|docs\/figures|docs\/one_conversion)/.test(page)) score -= 12;
    return score;
  },
};
