// Before anything is drawn: the theme that was chosen last, else the system's.
(function () {
  var kept = null;
  try { kept = localStorage.getItem("tokenlaw-theme"); } catch (error) { kept = null; }
  var dark = kept ? kept === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
})();
