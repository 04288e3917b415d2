// Shows the report that the page around sends, in a document that can reach nothing.

addEventListener("message", (event) => {
  if (event.source !== parent || typeof event.data.html !== "string") return;
  const report = new DOMParser().parseFromString(event.data.html, "text/html");
  const inside = [...report.head.querySelectorAll("style")];
  document.head.replaceChildren(...inside.map((style) => document.importNode(style, true)));
  document.body.replaceChildren(...[...report.body.childNodes].map((node) => document.importNode(node, true)));
});

const tell = () => parent.postMessage({ height: document.documentElement.scrollHeight }, "*");
addEventListener("DOMContentLoaded", () => {
  new ResizeObserver(tell).observe(document.body);
  parent.postMessage({ isReady: true }, "*");
});
