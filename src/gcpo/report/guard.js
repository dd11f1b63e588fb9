"use strict";
// Runs before everything else, so that whatever fails later is seen on the page and not only in the console.
function showError(message) {
  const box = document.getElementById("error");
  box.hidden = false;
  box.append(`${message}\n`);
}
window.addEventListener("error", (event) => showError(event.message));
window.addEventListener("unhandledrejection", (event) => showError(String(event.reason)));
