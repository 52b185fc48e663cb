// Before the first paint: the chosen colours, so that the page does not flash. Then what must work before the program
// does: a token from another tab, and a word if the program cannot start.
(function () {
  "use strict";
  var started = false;
  var spare = [];

  // Once the host has refused the token: with that of another tab. The first one that answered may have slept since retinker was
  // started anew, and know no better.
  function begin() {
    if (!spare.length || !document.querySelector("[data-state=locked]")) return;
    sessionStorage.setItem("retinker.token", spare.shift());
    location.reload();
  }

  try {
    var theme = localStorage.getItem("retinker.theme");
    if (theme === "dark" || theme === "light") {
      document.documentElement.setAttribute("data-theme", theme);
    }
  } catch (_) {
    // Storage may be forbidden; then the system's colours are used.
  }

  // A link opened in a new tab has no token: the tabs of this origin that have one give it. It is kept nowhere but
  // in tabs, and a tab of another origin (another port is one) cannot ask.
  try {
    var key = "retinker.token";
    var tabs = new BroadcastChannel(key);
    tabs.onmessage = function (event) {
      var mine = sessionStorage.getItem(key);
      if (event.data === "?") {
        if (mine) tabs.postMessage({ token: mine });
      } else if (event.data && typeof event.data.token === "string") {
        if (!mine) {
          sessionStorage.setItem(key, event.data.token);
          if (started) location.reload();
        } else if (mine !== event.data.token) {
          spare.push(event.data.token);
          begin();
        }
      }
    };
    if (!sessionStorage.getItem(key) && location.hash.indexOf("token=") < 0) tabs.postMessage("?");
  } catch (_) {
    // Then the page says which address to open.
  }

  // What has the keyboard may be taken off the page, moved or disabled: the keyboard then goes to what stands nearest, and
  // not back to the top. What somebody has clicked away from does not get it back.
  var last = null;
  var around = [];
  var standIn = null;
  addEventListener("focusin", function (event) {
    if (event.target === standIn) return;
    last = event.target;
    standIn = null;
    around = [];
    for (var node = last.parentElement; node; node = node.parentElement) around.push(node);
  });
  addEventListener("pointerdown", function () {
    last = null;
  }, true);
  function nearest() {
    var open = document.querySelector("dialog[open]");
    for (var at = 0; at < around.length; at += 1) {
      var node = around[at];
      if (open && !open.contains(node)) break;
      if (node.isConnected && node.checkVisibility() && node.matches("section, fieldset, form, dialog, li, table, main")) return node;
    }
    return open || document.getElementById("page-title");
  }
  new MutationObserver(function () {
    begin();
    if (!last) return;
    var now = document.activeElement;
    if (now && now !== document.body && now !== standIn && !now.disabled && now.checkVisibility()) return;
    var there = last.isConnected && last.checkVisibility() && !last.disabled;
    var to = there ? last : nearest();
    if (!to || to === now) return;
    standIn = there ? null : to;
    if (standIn && !to.hasAttribute("tabindex")) to.tabIndex = -1;
    to.focus({ preventScroll: true });
  }).observe(document, { childList: true, subtree: true, attributes: true, attributeFilter: ["disabled"] });

  function fail(event) {
    var box = document.getElementById("fatal");
    var detail = document.getElementById("fatal-detail");
    var skeleton = document.getElementById("skeleton");
    if (started || !box || !detail) return;
    if (!detail.textContent) {
      var reason = event.reason || event.error || event;
      detail.textContent = String((reason && reason.message) || "a part of the page could not be loaded");
    }
    if (skeleton) skeleton.remove();
    box.hidden = false;
  }
  addEventListener("TrunkApplicationStarted", function () {
    started = true;
  });
  addEventListener("unhandledrejection", fail);
  // In the capture phase, since a script that fails to load does not bubble.
  addEventListener("error", fail, true);
})();
