(function () {
  "use strict";
  const drawn = JSON.parse(document.getElementById("drawn").textContent);
  const sessions = drawn.sessions;
  const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", timeZone: "Asia/Kolkata" });

  // 3.5 is the middle of the fourth session; an end of a session is its close, not the next one's open.
  function said(at) {
    if (at === null) return "";
    const k = Math.min(Math.max(Math.ceil(at) - 1, 0), sessions.length - 1);
    const [date, open, close] = sessions[k];
    return date + ", " + clock.format(open + (at - k) * (close - open)) + " IST";
  }

  function draw(place) {
    const chart = drawn.charts[place.dataset.chart];
    for (const trace of chart.data) if (trace.meta === "sessions" && !trace.text) trace.text = trace.x.map(said);
    Plotly.react(place, chart.data, chart.layout, { responsive: true, displaylogo: false, displayModeBar: "hover", modeBarButtonsToRemove: ["lasso2d", "select2d"] });
  }

  const places = Array.from(document.querySelectorAll(".chart"));
  const seen = new IntersectionObserver(function (entries) {
    for (const entry of entries) if (entry.isIntersecting) { seen.unobserve(entry.target); draw(entry.target); }
  }, { rootMargin: "600px" });
  for (const place of places) {
    place.style.minHeight = drawn.charts[place.dataset.chart].layout.height + "px";
    seen.observe(place);
  }

  const chosen = document.getElementById("instrument");
  if (chosen) chosen.addEventListener("change", function () {
    const place = document.getElementById("prices");
    place.dataset.chart = "price " + chosen.value;
    document.getElementById("shown").textContent = chosen.value;
    draw(place);
  });

  function fit(width) {
    for (const place of places) { draw(place); Plotly.relayout(place, { width: width, autosize: !width }); }
  }
  window.addEventListener("beforeprint", function () { fit(690); });
  window.addEventListener("afterprint", function () { fit(undefined); });
  window.drawEverything = function () { places.forEach(draw); return places.length; };
})();
