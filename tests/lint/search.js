// What the search page of a site lists for each query, best first: its own scripts, without a browser.
//
//     node search.js SITE < QUERIES.json
const { readFileSync } = require("fs");
const { createContext, runInContext } = require("vm");

const site = process.argv[2];
const page = createContext({
  document: { getElementById: () => null },
  DOCUMENTATION_OPTIONS: {},
  SPHINX_HIGHLIGHT_ENABLED: false,
  _: (text) => text,
  _ready: () => {},
});
page.window = page;
const search = readFileSync(`${site}/search.html`, "utf8");
const scripts = [...search.matchAll(/<script src="([^"?]+)/g)].map((found) => found[1]);
for (const script of scripts)
  if (/stemmer|language_data|scorer|searchtools|searchindex/.test(script))
    runInContext(readFileSync(`${site}/${script}`, "utf8"), page);
page.queries = JSON.parse(readFileSync(0, "utf8"));
const listed = `queries.map(
  (query) => Search._performSearch(...Search._parseQuery(query)).reverse().map((one) => one[0] + one[2])
)`;
console.log(JSON.stringify(runInContext(listed, page)));
